from .interfaces import DatasetWithInputDim as DatasetWithInputDim
from .interfaces import DatasetWithLabels as DatasetWithLabels
from .rows import DataFrameToTensor as DataFrameToTensor
from .rows import DataFrameWithLabels as DataFrameWithLabels
from .rows import DatasetWithConfidence as DatasetWithConfidence
from .rows import init_confidence_from_csv as init_confidence_from_csv
from .rows import save_confidence_to_csv as save_confidence_to_csv
