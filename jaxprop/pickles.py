"""Interprets pickles by a table of few instructions: nothing is imported or called.

A pickle is a small program that may call any function. Here a `Vocabulary` says what becomes of the
names and calls in it; what it does not know is an error, or an `Opaque`.
"""

import pickletools
import struct
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

MAX_INSTRUCTIONS = 500_000
MAX_NAME = 500  # The longest name, in characters.
# What reading a damaged pickle raises: stack entries are missing, arguments have other types.
DAMAGE = (
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    OSError,
    struct.error,
)
# Optimisers number their states. Before PyTorch 1.6 the numbers are addresses, which have 47 bits.
_MAX_KEY = 2**48


class Vocabulary:
    """What a kind of pickle may name, call and hold: `run` asks it, a subclass says it."""

    def __init__(self) -> None:
        self._num_instructions = 0

    def count_instruction(self) -> None:
        """Raises ValueError where the file's pickles together are too long a program."""
        self._num_instructions += 1
        require(
            self._num_instructions <= MAX_INSTRUCTIONS,
            'more than {} instructions',
            MAX_INSTRUCTIONS,
        )

    def named(self, name: str) -> Any:
        """Makes the object that a name in the pickle, 'module name', stands for."""
        raise NotImplementedError

    def call(self, function: Any, arguments: Any) -> Any:
        """Makes the object that a call in the pickle stands for."""
        raise NotImplementedError

    def new(self, made: Any, arguments: Any, named: Any) -> Any:
        """Makes the object that an instance in the pickle stands for; `named` are arguments too."""
        raise ValueError('it makes an instance of a class')

    def build(self, target: Any, state: Any) -> None:
        """Sets the attributes of an object."""
        raise NotImplementedError

    def find(self, identity: Any) -> Any:
        """Gets the object that a persistent id stands for."""
        raise ValueError('it names something that is stored elsewhere')

    def data(self, value: bytes, place: int) -> Any:
        """Makes the object that bytes stand for; they begin at this place of the file."""
        raise NotImplementedError


class Opaque:
    """Stands for a thing in a file that is no tensor, of which only the name is known.

    It does nothing. Whatever the pickle calls with it, sets in it or adds to it is dropped.
    """

    def __init__(self, name: str):
        self.name = name

    def error(self) -> ValueError:
        """Makes the error that is raised where a tensor or a dict is needed."""
        return ValueError(f'it names {self.name!r}, which is not for tensors')


class _OddKey:
    """Stands for a key of a dict that is neither a text nor a small number, of which only the type
    is known."""

    def __init__(self, kind: str):
        self.kind = kind

    def __str__(self) -> str:
        return f'<{self.kind}>'


def run(file: BinaryIO, vocabulary: Vocabulary, find: Callable[[Any], Any] | None = None) -> Any:
    """Interprets one pickle, from the file's position to its end.

    Args:
      file: of the pickle.
      vocabulary: of the file.
      find: gets the object that a persistent id stands for; by default the vocabulary does.
    """
    # Each turn below interprets one instruction, as Python's pickletools describes it.
    find = find or vocabulary.find
    stack: list[Any] = []
    marked: list[list[Any]] = []  # The stacks below each mark.
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(file):
        vocabulary.count_instruction()
        name = opcode.name
        if name == 'STOP':
            (value,) = stack
            return value
        elif name in ('PROTO', 'FRAME'):
            pass
        elif name == 'MARK':
            marked.append(stack)
            stack = []
        elif name in (
            'BININT',
            'BININT1',
            'BININT2',
            'INT',
            'LONG',
            'LONG1',
            'LONG4',
            'BINFLOAT',
            'BINUNICODE',
            'SHORT_BINUNICODE',
            'BINSTRING',
            'SHORT_BINSTRING',
        ):
            stack.append(argument)
        elif name in ('NONE', 'NEWTRUE', 'NEWFALSE'):
            stack.append({'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}[name])
        elif name in ('EMPTY_DICT', 'EMPTY_LIST', 'EMPTY_TUPLE'):
            stack.append({'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple}[name]())
        elif name in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
            count = int(name[-1])
            require(len(stack) >= count, 'the stack is empty')
            stack[-count:] = [tuple(stack[-count:])]
        elif name == 'TUPLE':
            items, stack = stack, marked.pop()
            stack.append(tuple(items))
        elif name in ('APPEND', 'APPENDS'):
            if name == 'APPEND':
                items = [stack.pop()]
            else:
                items, stack = stack, marked.pop()
            if not isinstance(stack[-1], Opaque):
                require(type(stack[-1]) is list, '{} to a {}', name, type(stack[-1]).__name__)
                stack[-1].extend(items)
        elif name in ('SETITEM', 'SETITEMS'):
            if name == 'SETITEM':
                items = stack[-2:]
                del stack[-2:]
            else:
                items, stack = stack, marked.pop()
            if isinstance(stack[-1], Opaque):
                continue
            require(type(stack[-1]) is dict, '{} in a {}', name, type(stack[-1]).__name__)
            set_items(stack[-1], zip(items[::2], items[1::2], strict=True))
        elif name in ('BINPUT', 'LONG_BINPUT'):
            memo[argument] = stack[-1]
        elif name == 'MEMOIZE':
            memo[len(memo)] = stack[-1]
        elif name in ('BINGET', 'LONG_BINGET'):
            stack.append(memo[argument])
        elif name in ('GLOBAL', 'STACK_GLOBAL'):
            if name == 'STACK_GLOBAL':
                parts = stack[-2:]
                del stack[-2:]
                require(
                    len(parts) == 2
                    and all(type(part) is str and len(part) <= MAX_NAME for part in parts),
                    'a name that is no short text',
                )
                argument = ' '.join(parts)
            stack.append(vocabulary.named(argument))
        elif name == 'BINPERSID':
            stack.append(find(stack.pop()))
        elif name == 'REDUCE':
            arguments = stack.pop()
            stack.append(vocabulary.call(stack.pop(), arguments))
        elif name in ('NEWOBJ', 'NEWOBJ_EX'):
            named = stack.pop() if name == 'NEWOBJ_EX' else {}
            arguments = stack.pop()
            stack.append(vocabulary.new(stack.pop(), arguments, named))
        elif name == 'BUILD':
            state = stack.pop()
            vocabulary.build(stack[-1], state)
        elif name in ('SHORT_BINBYTES', 'BINBYTES', 'BINBYTES8', 'BYTEARRAY8'):
            stack.append(vocabulary.data(argument, file.tell() - len(argument)))
        elif name == 'EMPTY_SET':
            stack.append(Opaque('builtins.set'))
        elif name == 'ADDITEMS':
            stack = marked.pop()
            require(isinstance(stack[-1], Opaque), 'ADDITEMS to a {}', type(stack[-1]).__name__)
        elif name == 'FROZENSET':
            stack = marked.pop()
            stack.append(Opaque('builtins.frozenset'))
        elif name == 'POP':
            stack.pop()
        else:
            raise ValueError(f'the pickle instruction {name} is none that is read')
    raise ValueError('the pickle has no end')


def set_items(target: dict[Any, Any], pairs: Iterable[tuple[Any, Any]]) -> None:
    """Sets entries of a dict; a key that is no text and no small number becomes an `Opaque`."""
    for key, value in pairs:
        if type(key) is str or (type(key) is int and abs(key) < _MAX_KEY):
            target[key] = value
        else:
            # Never hash such a key: the hash of deeply nested tuples overflows the stack, and huge
            # numbers could all have one hash. Its entry is left out.
            if not isinstance(key, _OddKey):
                key = _OddKey(type(key).__name__)
            target[key] = Opaque('a key that is no text')


def require(condition: bool, message: str, *values: Any) -> None:
    """Raises ValueError unless the condition holds; only then makes the message of the values.

    The values are numbers, short texts and tuples of numbers, never nested values of the pickle: a
    few hundred of its bytes can stand for a value whose text is longer than any memory.
    """
    if not condition:
        raise ValueError(message.format(*values))
