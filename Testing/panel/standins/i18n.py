"""Stand-in for ``slicer.i18n``: without translations, every text is its own translation."""


def translate(context: str, text: str) -> str:
    return text


def tr(text: str) -> str:
    return text
