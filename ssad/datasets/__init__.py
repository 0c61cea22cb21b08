"""What a row is: reading tables, labels, confidence per sample.

Names are imported when they are first used, so that tables are read without torch. What is exported, and from
where, stands in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
