"""What can go wrong with a stack; the message says which service, what was expected and what we got."""


class StackError(Exception):
    """The stack cannot do what it is for; it has been, or will be, stopped."""
