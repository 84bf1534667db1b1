"""Frozen results and their files: what the wings hand to each other.

A result is plain data, saved as one JSON file that says what it is; pictures are drawn from
results alone, without torch and without running anything again.

found.py      range tests, short runs, the lr that was found
trained.py    runs, and comparisons of them
foreseen.py   forecasts of schedules that were not run
measured.py   what steps did: a Probe's rows, who made the lr
files.py      results as JSON, there whole or not at all
loading.py    the way back
"""

from ratecraft._public import set_public_module as _set_public_module

from ._comparison import Comparison as Comparison
from ._comparison import Evaluation as Evaluation
from ._comparison import Flat as Flat
from ._comparison import Run as Run
from ._comparison import Setting as Setting
from ._comparison import Summary as Summary
from ._comparison import TimeToTarget as TimeToTarget
from ._forecast import Forecast as Forecast
from ._forecast import ForecastEntry as ForecastEntry
from ._layer_stats import Breakdown as Breakdown
from ._layer_stats import LayerStats as LayerStats
from ._layer_stats import layer_names as layer_names
from ._layer_stats import load_layer_stats as load_layer_stats
from ._loading import Result as Result
from ._loading import load as load
from ._lr_search import LRFinderResult as LRFinderResult
from ._lr_search import LRRangeTestResult as LRRangeTestResult
from ._lr_search import ShortRun as ShortRun
from ._range_test_rules import RULES as RULES
from ._range_test_rules import Suggestion as Suggestion
from ._range_test_rules import suggest as suggest

_set_public_module(globals())
