"""Who is in the study, with which class, in which part: tables, rules, identity, joining, splits, the datalist."""
