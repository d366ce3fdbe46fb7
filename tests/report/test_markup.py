"""Elements are written as HTML has them, and no text becomes markup."""

from html.parser import HTMLParser

import pytest

from monai_chd.report.markup import Markup, element, join

NASTY = "<script>alert(1)</script> & \"q\" 'a' </p> <!-- ]]> é"


class Reader(HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append(dict(attrs))

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("content", [NASTY, [NASTY], [[NASTY], None], (part for part in [NASTY])])
def test_text_comes_back_as_text_and_never_as_an_element(content):
    read = Reader(element("p", content))
    assert read.tags == ["p"] and read.text == NASTY


def test_attribute_values_come_back_as_they_were_and_cannot_end_the_attribute():
    read = Reader(element("p", "x", title=NASTY, class_="a b", aria_label='" onclick="x', data_n=3))
    assert read.attributes == [{"title": NASTY, "class": "a b", "aria-label": '" onclick="x', "data-n": "3"}]


def test_none_and_false_leave_an_attribute_out_and_true_has_no_value():
    assert element("td", 1.5, hidden=True, id=None, inert=False) == "<td hidden>1.5</td>"


def test_elements_are_put_in_as_they_are():
    assert element("ul", [element("li", "a & b"), element("li", 0)]) == "<ul><li>a &amp; b</li><li>0</li></ul>"


def test_elements_without_content_are_written_as_their_language_has_them():
    assert element("br") == "<br>" and element("circle", r=2) == '<circle r="2"/>' and element("p") == "<p></p>"
    with pytest.raises(ValueError, match="<img> takes no content, came 'x'"):
        element("img", "x")


def test_joined_text_is_escaped_and_what_is_escaped_is_not_escaped_again():
    assert join(["a<b", Markup("<hr>"), None, 2]) == "a&lt;b<hr>2"
    assert isinstance(join("x"), Markup) and join(join("&")) == "&amp;"


def test_markup_with_text_added_to_it_is_text_and_therefore_escaped():
    assert join(element("b", "x") + "<i>") == "&lt;b&gt;x&lt;/b&gt;&lt;i&gt;"
    assert join(f"{element('b', 'x')}<i>") == "&lt;b&gt;x&lt;/b&gt;&lt;i&gt;"
