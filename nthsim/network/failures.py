"""What a stranger's code says when it fails."""


def first_line(error: BaseException) -> str:
    """Its first words without a full stop; the name of the error where it says nothing."""
    words = str(error).strip().splitlines() or [type(error).__name__]
    return words[0].rstrip(".")


def kind_and_line(error: BaseException) -> str:
    """The kind of an error and, where it says something, its first words."""
    kind, words = type(error).__name__, first_line(error)
    return kind if words == kind else f"{kind}: {words}"
