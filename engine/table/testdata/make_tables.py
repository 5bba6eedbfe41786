"""Makes the test tables. Needs numpy==2.3.5 pandas==2.3.3 pyarrow==26.0.1. Run in this folder."""
import numpy as np, pandas as pd, pyarrow as pa, pyarrow.parquet as pq
n = 7
t = pd.date_range("2013-01-01 05:15", periods=n, freq="1h", tz="UTC")
df = pd.DataFrame({
    "f64": [0.1, -2.5, np.nan, 1e300, 5e-324, 3.0, 7.25], "f32": np.array([0.1, 2, 3, np.nan, 5, 6, 7], "f4"),
    "i64": np.arange(n) * 10**12, "i32": np.arange(n, dtype="i4") - 3, "u32": np.arange(n, dtype="u4") + 4_000_000_000,
    "flag": [True, False] * 3 + [True], "text": ["a", "b", None, "d,e", "quo\"te", "ä", "a"],
    "nullable": pd.array([1, None, 3, 4, None, 6, 7], dtype="Int64"), "when": t})
df["cat"] = df["text"].astype("category")
pq.write_table(pa.Table.from_pandas(df, preserve_index=False), "pandas.parquet", row_group_size=3)
pq.write_table(pa.Table.from_pandas(df, preserve_index=False), "v2_zstd.parquet", data_page_version="2.0", compression="zstd", use_dictionary=False)
df.drop(columns="cat").to_csv("pandas.csv", index=False)
pq.write_table(pa.table({"xs": [[1, 2], [3]]}), "nested.parquet")
a = np.arange(6, dtype="f4").reshape(2, 3) / 4
np.save("c.npy", a); np.save("fortran.npy", np.asfortranarray(a)); np.save("big_endian.npy", a.astype(">f8"))
np.save("ints.npy", np.array([-1, 2, 3], "i2")); np.save("text.npy", np.array(["a", "b"]))
from decimal import Decimal as D
d = lambda p, s, *v: pa.array([None if x is None else D(x) for x in v], pa.decimal128(p, s))
pq.write_table(pa.table({"small": d(3, 2, "1.25", "-9.99", None, "0.01"), "money": d(18, 4, "12345678901234.5678", "-0.0001", "0", None),
    "wide": d(38, 10, "1234567890123456789012345678.0123456789", "-0.1", "1e-10", "-9999999999999999999999999999.9999999999"),
    "whole": pa.array([D(10) ** 60, D(-3), None, D(0)], pa.decimal256(70, 0))}), "decimals.parquet")
