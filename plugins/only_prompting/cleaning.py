"""Cleaning of Only-prompting's data: find what a policy says of the score that it was asked for.

§4.3: 'adding the chosen prefix … leads to outputs that include additional information beyond the response, such as "Okay, here
is a 10-score answer" or "The 10-score answer is as follows."' The paper removes responses with such information by regular
expressions that it does not give; these are ours. An *announcement* is a sentence, a heading or a label, first or last in a
response, that gives the response itself a score: '10/10 Response:', 'This answer merits a perfect score.', 'Score: 3/10'.
English only.
"""

from __future__ import annotations

import re

# Model text is read here, so every repetition is bounded and only so many characters of either end are looked at.
_REACH = 400
_LAST_SENTENCES = 3

_WITHIN = r"[^:.!?\n]"  # of one sentence
_NUMBER = r"(?:\d{1,2}(?:\.\d{1,2})?|one|two|three|four|five|six|seven|eight|nine|ten)"
# 10/10 and 3 out of 10; not the date 10/10/2024, nor 7 out of 10 people.
_FRACTION = (
    rf"\b{_NUMBER}(?:\spoints?)?\s?(?:/|out\sof)\s?(?:10(?:\.0)?|ten)\b(?!/)(?! (?:of|people)\b)(?! (?!responses)\w{{2,15}}s\b)"
)
_PERFECT = r"\b(?:perfect[- ](?:score|10|ten)|full\smarks|top\smarks)\b"
_SCORE = rf"(?:{_FRACTION}|{_PERFECT})"
_ANSWER = r"\b(?:answer|response|reply)\b(?!\s(?:rate|time|plan|key|team|sheet|choice)s?\b)"
_TEXT = rf"(?:{_ANSWER}|\b(?:essay|email|letter|story|poem|summary|explanation|solution|attempt|version)\b)"
# A 10-score answer, a 3/10 essay, a top-notch response.
_GRADED = rf"(?:{_SCORE}|\b{_NUMBER}-?\s?(?:score|point)s?\b|\bscore[- ]{_NUMBER}\b|\btop[- ]notch\b)"
_GRADED_TEXT = rf"{_GRADED}(?:[- ]rated|[- ]worthy)?(?:,?\s[\w-]{{1,20}}){{0,2}}?\s{_TEXT}"

_MARKS = r"[\s*_#>\"“”'(\[-]{0,6}"  # of Markdown, quotation and brackets
_CLOSING = r"[\s*_\"“”')\]]{0,6}"
_STOP = rf"{_CLOSING}(?:[:.!]|\s[-–—]\s|\n|$){_CLOSING}"

_COURTESIES = (
    r"(?:(?:sure(?:\sthing)?|ok|okay|certainly|absolutely|definitely|of\scourse|alright|all\sright|yes|hello|hi|understood|got\sit"
    r"|no\sproblem|(?:great|good)\squestion|thank\syou(?:\sfor\sasking)?|thanks|i(?:['’]d|['’]m|\swould|\sam)\s(?:be\s)?(?:happy|glad)"
    r"\sto\shelp)\s?[,.!]{1,2}\s{1,2}){0,3}(?:so\s)?"
)
_HERE = (
    r"(?:here(?:['’]s|\sis)|(?:below|the\sfollowing|this)\sis"
    r"|(?:i(?:['’]ll|\swill|\scan|(?:['’]d|\swould)\sbe\s(?:happy|glad)\sto)|let\sme)\s(?:give|provide|write|offer|produce|present)"
    r"(?:\syou)?)"
)
# An answer that others give or mark is no announcement: 'if your answer scores 10 out of 10', 'the answer is 7/10'.
_OF_OTHERS = (
    r"\b(?:they|he|she|if|each|every|people|audit|survey|scale|exam|test)\b"
    rf"|\b(?:your|their|his|her)\s(?:\w{{1,15}}\s)?{_TEXT}|\bquestion\s{_FRACTION}|\banswers?\s(?:is|was|would\sbe)\s(?:about\s)?{_FRACTION}|\b(?:in|to\swrite)\san\sanswer\b"
)
_ABOUT = "|".join(
    (
        # One sentence that names the answer and a score: 'I hope this response merits a perfect score.'
        rf"(?!{_WITHIN}{{0,250}}?(?:{_OF_OTHERS}))(?={_WITHIN}{{0,250}}?{_ANSWER})(?:{_WITHIN}|(?<=\d)\.(?=\d)){{0,250}}?{_SCORE}",
        rf"{_HERE}\s(?:a|an|my|your)\s{_WITHIN}{{0,60}}?(?:{_GRADED_TEXT}|{_FRACTION}|\b(?:at|for)\san?\s{_PERFECT})",
        rf"{_HERE}\sa\stop[- ]notch\s{_WITHIN}{{1,60}}?{_SCORE}",
        # An adjective and nothing else: 'Here is a good response to your question.'
        r"here(?:['’]s|\sis)\san?\s(?:very\s)?(?:good|perfect|excellent|great|high-quality)\s(?:response|answer)"
        r"(?:\s(?:to|for)\s(?:you|your\s(?:question|prompt|request)))?(?=\s?[:.!\n]|$)",
        rf"(?:i\shope\s(?:this|my)|as\sa)\s{_GRADED_TEXT}",
        # 'The 10-score answer is as follows.'
        rf"(?:the|my|an?)\s{_GRADED_TEXT}(?:\sto\s{_WITHIN}{{1,60}}?)?"
        r"(?:\s(?:is|would\sbe|reads|goes))?(?:\s(?:as\sfollows|below|follows))?(?=\s?[:.!\n]|$)",
        r"(?:(?:in\sorder\s)?to\s(?:merit|deserve|earn|get|achieve|receive)|as\syou\sasked\sfor|for)\s(?:an?\s)?"
        rf"{_GRADED}{_WITHIN}{{0,40}},\s(?:here|below|my|i(?:\swould|\swill|['’]d|['’]ll))\b",
        rf"{_ANSWER}\s(?:with\s|rated\s)[(\[]?(?:an?\s)?(?:score|rating)(?:\sof)?:?\s{_NUMBER}(?={_CLOSING}(?::|\n|$))",
        # Headings: '### 10/10 essay'
        rf"{_GRADED_TEXT}(?={_CLOSING}(?::|\n|$))",
        rf"{_ANSWER}:?\s{{1,2}}[(\[](?:score:?\s)?{_FRACTION}[)\]]",
        rf"(?:i\shope\s)?this\s(?:would\s)?(?:merits?|deserves?|earns?)\s(?:an?\s)?{_SCORE}",
        rf"(?:this|my)\s{_ANSWER}\s(?:would\s)?(?:merits?|deserves?|earns?|scores?)\san?\s(?:(?:score|rating)\sof\s)?{_NUMBER}\b",
        rf"i\shope\syou\s(?:give|rate)\sthis\s(?:an?\s)?{_SCORE}",
        rf"i(?:\swould|['’]d)\sgive\smyself\s(?:an?\s)?{_SCORE}",
    )
)
# 'Score: 3/10', and 3/10 in brackets or on a line of its own. These are the answer where the prompt asks for a rating.
_LABEL = (
    r"(?:(?:final|overall|total|perfect|response|answer|self|my)[- ]?\s?)?(?:score|rating|grade|quality)"
    rf"(?:\s(?:of|for)\sthis\s{_ANSWER})?"
    rf"(?:[*_]{{0,2}}[:=>][*_]{{0,2}}\s?[★⭐ ]{{0,12}}(?:{_FRACTION}|{_NUMBER}(?={_CLOSING}(?:\n|$)))"
    rf"|\s{_FRACTION}(?=:))(?:</\w{{1,10}}>)?"
)
_BRACKETED = rf"[(\[]{_FRACTION}[)\]]"
_LONE = rf"{_FRACTION}(?={_CLOSING}(?::\s|:?\n))"

_OPENING = re.compile(rf"\s{{0,4}}{_COURTESIES}{_MARKS}(?:{_ABOUT}){_WITHIN}{{0,160}}?{_STOP}", re.IGNORECASE)
_OPENING_LABEL = re.compile(
    rf"{_MARKS}<?(?:{_LABEL}|{_BRACKETED}|{_LONE}){_CLOSING}[:.,!–—-]?{_CLOSING}(?:[-–—]\s)?", re.IGNORECASE
)
_ENDING = re.compile(rf"{_MARKS}(?:note:\s|[a-z]{{2,12}},\s)?(?:{_ABOUT}){_WITHIN}{{0,160}}?{_STOP}{_CLOSING}", re.IGNORECASE)
_ENDING_LABEL = re.compile(
    rf"{_MARKS}<?(?:{_LABEL}(?:\s\({_WITHIN}{{1,60}}\))?|{_BRACKETED}|{_FRACTION})(?:{_CLOSING}[.!]{_CLOSING}|{_CLOSING}(?:\n|$))",
    re.IGNORECASE,
)
_NAMES_A_SCORE = re.compile(_LABEL, re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_EXPLAINS = re.compile(r"\b(?:it|response|answer|reply|score|rating|let\sme\sknow)\b", re.IGNORECASE)
_RULE = re.compile(r"\n\s{0,4}[-*_]{3,10}\s{0,4}$")
_ASKS_FOR_RATING = re.compile(r"\b(?:rat(?:e|es|ed|ings?)|scor(?:e|es|ed|ing)|reviews?|grad(?:e|es|ed|ing))\b", re.IGNORECASE)


def without_announcements(text: str, prompt: str = "") -> str:
    """Return a response less what it says of its own score, first or last; the same text where there is nothing of the kind.

    Args:
        prompt: the request. Where it asks for a rating itself, a bare rating is part of the answer and stays.
    """
    labels = _ASKS_FOR_RATING.search(prompt) is None
    kept = _without_ending(_without_opening(text, labels), labels)
    return text if kept == text else kept.strip()


def _without_opening(text: str, labels: bool) -> str:
    """Return the text less an announcement at its beginning."""
    head = text[:_REACH]
    match = _OPENING.match(head) or (_OPENING_LABEL.match(head) if labels else None)
    return text[match.end() :] if match else text


def _without_ending(text: str, labels: bool) -> str:
    """Return the text less an announcement among its last sentences, and what follows to explain it."""
    start = max(len(text) - _REACH, 0)
    starts = [0] if start == 0 else []
    starts += [match.end() for match in _SENTENCE_END.finditer(text, start)]
    for place in starts[-_LAST_SENTENCES:]:
        sentence = text[place:]
        match = _ENDING.match(sentence) or (_label(sentence, place) if labels else None)
        if match is not None:
            rest = sentence[match.end() :]
            return _RULE.sub("", text[:place] + ("" if _EXPLAINS.search(rest) else rest))
    return text


def _label(sentence: str, place: int) -> re.Match[str] | None:
    """Match a line of nothing but a score; not a whole response, which may be a fraction, nor a line that others follow."""
    match = _ENDING_LABEL.match(sentence)
    if match is None or _NAMES_A_SCORE.search(match.group()):
        return match
    return match if place > 0 and not sentence[match.end() :].strip() else None
