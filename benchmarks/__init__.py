"""The benchmark behind `scripts/bench`: one module a measure, each side of it in a process of its own.

A measure is a module with `benches(made)`, what is compared with what, and `side(…)`, what a process does and times. Its name is
how the command line of a process names it. `command` lists the measures and runs them, `processes` starts and asks the processes,
`child` is what goes on in one, `comparison` makes figures of their times, `report` writes them down.

The process that starts the others holds the standard library only: a child's peak memory starts from what its parent had when it
was started, so a parent with PyTorch in it would be seen in every figure. That is why everything else is imported in functions.
"""
