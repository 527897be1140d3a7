"""Every exception of twinrank, drawn as a tree; a message says which thing, what was expected, what came, what to do.

TwinrankError
├── InputError (also ValueError)        something given cannot be used
│   ├── QueryError                      an empty query, a k below 1
│   ├── DocumentError                   a document without an id, with a field that cannot be stored…
│   ├── FilterError                     a `where` that does not parse or names an unknown field
│   ├── CalibrationError                too little to calibrate on, or a probability asked for where nothing was calibrated
│   └── RecipeError                     a recipe with an unknown key or a value out of range
├── DataError                           a file or folder of data that cannot be read
├── ModelError                          a checkpoint that cannot be used
│   ├── ModelNotFoundError              no such folder, nothing installed, no hub to be reached
│   ├── ModelDamagedError               a missing file, a wrong hash, NaN weights, shapes that do not fit
│   └── ModelUnsupportedError           a family, a pooling or a file format (pickle) that is not run here
├── CollectionError                     a directory that is no collection, or cannot be opened
│   ├── CollectionBusyError             another process is writing
│   ├── CollectionReadOnlyError         no permission to write
│   ├── ModelMismatchError              the view was made by another model
│   ├── StorageError                    a full disk, a failing write, a damaged database
│   └── EngineError                     an engine that cannot be reached, refuses, or went away
├── WorkersError                        processes or a cluster that encode, and died or cannot be reached
├── EndpointError                       a language model's endpoint that cannot be reached, refuses, or says what is no reply
├── IndexDamagedError                   a derived index that fails its checksum; it is rebuilt from the store
└── MissingExtraError (also ImportError)  an optional package that is not installed; names the extra
"""

from __future__ import annotations


class TwinrankError(Exception):
    """The parent of all; catch it to catch everything that twinrank refuses."""


class InputError(TwinrankError, ValueError):
    pass


class QueryError(InputError):
    pass


class DocumentError(InputError):
    pass


class FilterError(InputError):
    pass


class CalibrationError(InputError):
    pass


class RecipeError(InputError):
    pass


class DataError(TwinrankError):
    pass


class ModelError(TwinrankError):
    pass


class ModelNotFoundError(ModelError):
    pass


class ModelDamagedError(ModelError):
    pass


class ModelUnsupportedError(ModelError):
    pass


class CollectionError(TwinrankError):
    pass


class CollectionBusyError(CollectionError):
    pass


class CollectionReadOnlyError(CollectionError):
    pass


class ModelMismatchError(CollectionError):
    pass


class StorageError(CollectionError):
    pass


class EngineError(CollectionError):
    pass


class WorkersError(TwinrankError):
    pass


class EndpointError(TwinrankError):
    pass


class IndexDamagedError(TwinrankError):
    pass


class MissingExtraError(TwinrankError, ImportError):
    pass


class TruncationWarning(UserWarning):
    """Texts were longer than the encoder takes; what was cut off was not encoded. Says how many texts and tokens."""
