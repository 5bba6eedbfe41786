"""Makes stats.json.gz: expected values of drift statistics and performance metrics.

Needs numpy==2.3.5 scipy==1.17.1 scikit-learn==1.7.2 evidently==0.7.23 pandas==2.3.3.
Run with DO_NOT_TRACK=1 in this folder. Column kinds are always declared.
"""
import gzip, json
import numpy as np, pandas as pd
from scipy import stats, special
from scipy.spatial.distance import jensenshannon
from sklearn import metrics
from evidently.legacy.core import ColumnType
from evidently.legacy.calculations.stattests.psi import _psi
from evidently.legacy.calculations.stattests.jensenshannon import _jensenshannon
from evidently.legacy.calculations.stattests.hellinger_distance import _hellinger_distance
from evidently.legacy.calculations.stattests.wasserstein_distance_norm import _wasserstein_distance_norm
from evidently.legacy.calculations.stattests.chisquare_stattest import _chi_stat_test
from evidently.legacy.calculations.stattests.ks_stattest import _ks_stat_test

rng = np.random.default_rng(7)
def nums(a): return [None if isinstance(v, float) and np.isnan(v) else v for v in np.asarray(a).tolist()]

def numeric(name, ref, cur):
    r, c = pd.Series(ref).dropna(), pd.Series(cur).dropna()
    n = ColumnType.Numerical
    ks = stats.ks_2samp(r, c)
    return dict(name=name, ref=nums(ref), cur=nums(cur), integer=bool(r.dtype.kind == "i"),
        ks=float(ks.statistic), ks_p=float(ks.pvalue), ks_asymp=float(stats.ks_2samp(r, c, method="asymp").pvalue),
        wasserstein=float(stats.wasserstein_distance(r, c)),
        ev=dict(psi=float(_psi(r, c, n, .1)[0]), jensen_shannon=float(_jensenshannon(r, c, n, .1)[0]),
            hellinger=float(_hellinger_distance(r.copy(), c.copy(), n, .1)[0]),
            wasserstein=float(_wasserstein_distance_norm(r, c, n, .1)[0]),
            kolmogorov_smirnov=float(_ks_stat_test(r, c, n, .05)[0])))

def categorical(name, ref, cur):
    r, c = pd.Series(ref), pd.Series(cur)
    k = ColumnType.Categorical
    keys = sorted(set(r) | set(c))
    t = np.array([[int((r == v).sum()) for v in keys], [int((c == v).sum()) for v in keys]])
    chi = stats.chi2_contingency(t, correction=False)
    return dict(name=name, ref=list(ref), cur=list(cur), table=t.tolist(), chi2=float(chi.statistic), chi2_p=float(chi.pvalue), df=int(chi.dof),
        js2=float(jensenshannon(t[0], t[1], 2)),
        hellinger=float(np.sqrt(((np.sqrt(t[0]/t[0].sum())-np.sqrt(t[1]/t[1].sum()))**2).sum()/2)),
        ev=dict(psi=float(_psi(r, c, k, .1)[0]), jensen_shannon=float(_jensenshannon(r, c, k, .1)[0]),
            hellinger=float(_hellinger_distance(r.copy(), c.copy(), k, .1)[0]), chi_square=float(_chi_stat_test(r, c, k, .05)[0])))

r5 = lambda a: np.round(a, 5)
holes = r5(rng.normal(size=500)); holes[::7] = np.nan
num = [
    numeric("same", r5(rng.normal(size=700)), r5(rng.normal(size=600))),
    numeric("shift", r5(rng.normal(size=700)), r5(rng.normal(.4, 1.2, size=650))),
    numeric("equal_sizes", r5(rng.normal(size=200)), r5(rng.normal(.1, size=200))),
    numeric("skewed_large", r5(rng.gamma(2, size=10500)), r5(rng.gamma(2.1, size=1500))),
    numeric("integers", rng.poisson(30, 800), rng.poisson(31, 700)),
    numeric("few", rng.integers(0, 6, 500), rng.integers(1, 8, 400)),
    numeric("missing", holes, r5(rng.normal(.2, size=400))),
    numeric("apart", r5(rng.normal(size=60)), r5(rng.normal(9, size=50))),
]
cat = [
    categorical("same", list(rng.choice(list("abcd"), 900)), list(rng.choice(list("abcd"), 800))),
    categorical("shift", list(rng.choice(list("abcd"), 900, p=[.4, .3, .2, .1])), list(rng.choice(list("abcd"), 500, p=[.2, .3, .2, .3]))),
    categorical("unseen", list(rng.choice(list("ab"), 300)), list(rng.choice(list("abc"), 300))),
    categorical("rare", ["x"] * 20000 + ["y"], ["x"] * 300 + ["z"]),
]
kst = [dict(n=int(n), d=float(d), sf=float(stats.kstwo.sf(d, n))) for n in (1, 2, 5, 10, 50, 139, 141, 300, 1000, 9000, 60000, 150000)
       for d in ([.05, .1, .2, .35, .5, .7, .95] + [z / np.sqrt(n) for z in (.3, .5, .7, .9, 1.2, 1.6, 2.5, 5)]) if 0 < d < 1]

def perf(name, y, s, w=None):
    yh = (s >= .5).astype(int)
    f = lambda m, p: float(m(y, p, sample_weight=w))
    return dict(name=name, labels=y.tolist(), scores=s.tolist(), weights=None if w is None else w.tolist(), metrics=dict(
        auc=f(metrics.roc_auc_score, s), accuracy=f(metrics.accuracy_score, yh), precision=f(metrics.precision_score, yh),
        recall=f(metrics.recall_score, yh), f1=f(metrics.f1_score, yh), log_loss=f(metrics.log_loss, s), brier=f(metrics.brier_score_loss, s)))
y = rng.integers(0, 2, 400); s = np.round(np.clip(.3 * y + .7 * rng.random(400), 0, 1), 2)  # many ties
y2 = rng.integers(0, 2, 300); s2 = 1 / (1 + np.exp(-(y2 + rng.normal(size=300))))
binary = [perf("ties", y, s), perf("continuous", y2, s2), perf("weighted", y, s, np.round(rng.random(400) * 3, 3)),
          perf("extremes", np.array([0, 1, 1, 0, 1]), np.array([0., 1., 0., 1., .5]))]
t = rng.normal(size=200); v = t + rng.normal(size=200) * .3; w = rng.random(200)
reg = [dict(truth=t.tolist(), values=v.tolist(), weights=ww, metrics=dict(
    rmse=float(metrics.root_mean_squared_error(t, v, sample_weight=ww)), mae=float(metrics.mean_absolute_error(t, v, sample_weight=ww)),
    r2=float(metrics.r2_score(t, v, sample_weight=ww)))) for ww in (None, w.tolist())]
a = rng.choice(list("xyz"), 200); b = np.where(rng.random(200) < .6, a, rng.choice(list("xyzq"), 200))
multi = dict(labels=a.tolist(), decided=b.tolist(), accuracy=float(metrics.accuracy_score(a, b)), macro_f1=float(metrics.f1_score(a, b, average="macro")))

with gzip.GzipFile("stats.json.gz", "wb", mtime=0) as f:
    f.write(json.dumps(dict(numeric=num, categorical=cat, kstwo=kst, binary=binary, regression=reg, multiclass=multi)).encode())
