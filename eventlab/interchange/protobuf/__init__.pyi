from .convert import decode as decode
from .convert import dump as dump
from .convert import encode as encode
from .convert import load as load
