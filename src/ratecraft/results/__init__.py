"""Results: frozen dataclasses that functions return, saved as JSON.

Reports and figures are drawn from results alone, without torch.

_lr_search.py    results of learning rate finders and range tests
_run.py          training runs and their measurements
_comparison.py   comparisons of training runs
_statistics.py   means over seeds, gaps between candidates, ranges of good learning rates
_significance.py  confidence intervals of differences between candidates
_verdict.py      comparisons in words
_forecast.py     predicted losses of schedules that were not run
_layer_stats.py  per-layer statistics of a Probe, breakdown of a learning rate
_charts.py       charts of training runs
_base.py         short reprs, tables with pictures for notebooks, saving as JSON
_loading.py      loading
"""

from ratecraft._public import set_public_module as _set_public_module

from ._comparison import Comparison as Comparison
from ._comparison import RunConfig as RunConfig
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
from ._run import Evaluation as Evaluation
from ._run import Run as Run
from ._statistics import OptimalLRRange as OptimalLRRange
from ._statistics import Summary as Summary
from ._statistics import TimeToTarget as TimeToTarget

_set_public_module(globals())
