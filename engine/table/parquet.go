package table

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// readParquet reads a flat file: one leaf a column, required or optional.
func readParquet(f source, size int64, path string, limits Limits) (t *Table, err error) {
	// The library panics on some damaged pages, and what it says may be what stands in them.
	defer func() {
		if recover() != nil {
			t, err = nil, fmt.Errorf("read %s: damaged Parquet file", path)
		}
	}()
	if err := checkFooter(f, size); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	pf, err := parquet.OpenFile(f, size, parquet.SkipBloomFilters(true), parquet.SkipPageIndex(true))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	for _, g := range pf.Metadata().RowGroups {
		if len(g.Columns) != len(pf.Root().Columns()) {
			return nil, fmt.Errorf("read %s: a row group of %d columns where the file has %d", path, len(g.Columns), len(pf.Root().Columns()))
		}
	}
	leaves := pf.Root().Columns()
	if err := limits.check(path, pf.NumRows(), int64(len(leaves))); err != nil {
		return nil, err
	}
	if pf.NumRows() < 0 {
		return nil, fmt.Errorf("read %s: %d rows", path, pf.NumRows())
	}
	t = &Table{Rows: int(pf.NumRows()), Named: true}
	left := limits.Memory
	if left == 0 {
		left = defaultMemory(size)
	}
	room := &room{most: left, left: left}
	for _, leaf := range leaves {
		c, err := readParquetColumn(pf, leaf, t.Rows, &pageCheck{f: f, size: size, leaf: leaf, rows: t.Rows}, room)
		if err != nil {
			return nil, fmt.Errorf("read %s: column %q: %w", path, leaf.Name(), err)
		}
		t.Columns = append(t.Columns, c)
	}
	return t, nil
}

// checkFooter refuses a footer longer than the file, or one that claims more than it
// holds, before the library makes room for it, and columns within columns before it
// follows them.
func checkFooter(f io.ReaderAt, size int64) error {
	if size < 12 {
		return errors.New("not a Parquet file")
	}
	var tail [8]byte
	if _, err := f.ReadAt(tail[:], size-8); err != nil {
		return fmt.Errorf("read footer: %w", err)
	}
	n := int64(binary.LittleEndian.Uint32(tail[:4]))
	if string(tail[4:]) != "PAR1" || n > size-12 {
		return errors.New("not a Parquet file, or cut off")
	}
	if n > maxFooter {
		return fmt.Errorf("metadata of %d bytes, more than %d", n, maxFooter)
	}
	footer := make([]byte, n)
	if _, err := f.ReadAt(footer, size-8-n); err != nil {
		return fmt.Errorf("read footer: %w", err)
	}
	k, err := skimStruct(footer)
	if err != nil {
		return err
	}
	var schema struct {
		Elements []format.SchemaElement `thrift:"2,required"`
	}
	if err := thrift.Unmarshal(new(thrift.CompactProtocol), footer[:k], &schema); err != nil {
		return fmt.Errorf("read footer: %w", err)
	}
	for i, e := range schema.Elements {
		if i > 0 && e.NumChildren.V != 0 {
			return fmt.Errorf("column %q: nested and repeated columns are not supported", e.Name)
		}
	}
	return nil
}

// maxFooter bounds a file's metadata.
const maxFooter = 64 << 20

// room is the memory that a table's values may still take.
type room struct{ most, left int64 }

func (r *room) take(n int64) error {
	if n > r.left {
		return fmt.Errorf("the table takes more than %d MiB in memory, the limit for a file of its size: split it, or write it less compressed", r.most>>20)
	}
	r.left -= n
	return nil
}

// convert appends a value to a column.
type convert func(c *Column, v parquet.Value)

func readParquetColumn(pf *parquet.File, leaf *parquet.Column, rows int, check *pageCheck, room *room) (Column, error) {
	c := Column{Name: leaf.Name()}
	if !leaf.Leaf() || leaf.MaxRepetitionLevel() > 0 {
		return c, errors.New("nested and repeated columns are not supported")
	}
	// The library doubles its room until LZ4 data fits, which what is damaged never does.
	if codec := leaf.Compression(); codec != nil && codec.CompressionCodec() == format.Lz4Raw {
		return c, errors.New("LZ4 compression is not supported: write it with zstd, snappy or gzip")
	}
	conv, err := converter(&c, leaf.Type())
	if err != nil {
		return c, err
	}
	if err := room.take(int64(rows) * c.Type.size()); err != nil {
		return c, err
	}
	for i := range pf.RowGroups() {
		if err := check.chunk(&pf.Metadata().RowGroups[i].Columns[leaf.Index()].MetaData); err != nil {
			return c, err
		}
	}
	// A guess: the row count of a damaged file is a claim.
	c.reserve(min(rows, 1<<20))
	r := &columnReader{c: &c, conv: conv, buf: make([]parquet.Value, 1024), rows: rows, room: room}
	for _, group := range pf.RowGroups() {
		if err := r.chunk(group.ColumnChunks()[leaf.Index()]); err != nil {
			return c, err
		}
	}
	if c.Null != nil {
		for len(c.Null) < len(c.I64) {
			c.Null = append(c.Null, false)
		}
	}
	if c.Len() != rows {
		return c, fmt.Errorf("%d values, the file says %d rows", c.Len(), rows)
	}
	return c, nil
}

func (c *Column) reserve(n int) {
	switch c.Type {
	case Float64:
		c.F64 = make([]float64, 0, n)
	case Float32:
		c.F32 = make([]float32, 0, n)
	case Int64:
		c.I64 = make([]int64, 0, n)
	case String:
		c.Str = make([]string, 0, n)
	case Time:
		c.Times = make([]time.Time, 0, n)
	}
}

// columnReader appends the values of pages to a column.
type columnReader struct {
	c    *Column
	conv convert
	buf  []parquet.Value
	rows int
	room *room
}

func (r *columnReader) chunk(chunk parquet.ColumnChunk) error {
	pages := chunk.Pages()
	defer pages.Close()
	for {
		page, err := pages.ReadPage()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = r.page(page)
		parquet.Release(page)
		if err != nil {
			return err
		}
	}
}

func (r *columnReader) page(page parquet.Page) error {
	c := r.c
	if int64(c.Len())+page.NumValues() > int64(r.rows) {
		return fmt.Errorf("more values than the %d rows the file says", r.rows)
	}
	if done, err := readPlain(c, page); done || err != nil {
		return err
	}
	values := page.Values()
	for {
		n, err := values.ReadValues(r.buf)
		for _, v := range r.buf[:n] {
			if v.IsNull() {
				c.appendMissing()
				continue
			}
			if c.Type == String { // one text of a dictionary may stand in every row
				if err := r.room.take(int64(len(v.ByteArray()))); err != nil {
					return err
				}
			}
			r.conv(c, v)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrNoProgress
		}
	}
}

// readPlain takes the values of a page without nulls at once where the library
// gives them in the column's own type.
func readPlain(c *Column, page parquet.Page) (done bool, err error) {
	n := int(page.NumValues())
	if page.NumNulls() != 0 {
		return false, nil
	}
	switch r := page.Values().(type) {
	case parquet.DoubleReader:
		if c.Type != Float64 {
			return false, nil
		}
		at := len(c.F64)
		c.F64 = append(c.F64, make([]float64, n)...)
		return true, readAll(n, func(done int) (int, error) { return r.ReadDoubles(c.F64[at+done:]) })
	case parquet.FloatReader:
		if c.Type != Float32 {
			return false, nil
		}
		at := len(c.F32)
		c.F32 = append(c.F32, make([]float32, n)...)
		return true, readAll(n, func(done int) (int, error) { return r.ReadFloats(c.F32[at+done:]) })
	}
	return false, nil
}

func readAll(n int, read func(done int) (int, error)) error {
	for done := 0; done < n; {
		k, err := read(done)
		if done += k; done >= n {
			return nil
		}
		if err != nil {
			return err
		}
		if k == 0 {
			return io.ErrNoProgress
		}
	}
	return nil
}

func (c *Column) appendMissing() {
	switch c.Type {
	case Float64:
		c.F64 = append(c.F64, math.NaN())
	case Float32:
		c.F32 = append(c.F32, float32(math.NaN()))
	case Int64:
		c.I64 = append(c.I64, 0)
		for len(c.Null) < len(c.I64)-1 {
			c.Null = append(c.Null, false)
		}
		c.Null = append(c.Null, true)
	case String:
		c.Str = append(c.Str, "")
	case Time:
		c.Times = append(c.Times, time.Time{})
	}
}

// converter sets the column's type and returns how to append a value.
func converter(c *Column, t parquet.Type) (convert, error) {
	if logical := t.LogicalType(); logical != nil && logical.Value != nil {
		switch l := logical.Value.(type) {
		case *format.TimestampType:
			return timestamps(c, l)
		case *format.DateType:
			c.Type = Time
			return func(c *Column, v parquet.Value) {
				c.Times = append(c.Times, time.Unix(int64(v.Int32())*86_400, 0).UTC())
			}, nil
		case *format.DecimalType:
			return decimals(c, t, l)
		case *format.IntType:
			if !l.IsSigned {
				return unsigned(c, t.Kind())
			}
		case *format.Float16Type:
			return nil, errors.New("FLOAT16 is not supported")
		}
	}
	switch t.Kind() {
	case parquet.Boolean:
		c.Type = Int64
		return func(c *Column, v parquet.Value) {
			var b int64
			if v.Boolean() {
				b = 1
			}
			c.I64 = append(c.I64, b)
		}, nil
	case parquet.Int32:
		c.Type = Int64
		return func(c *Column, v parquet.Value) { c.I64 = append(c.I64, int64(v.Int32())) }, nil
	case parquet.Int64:
		c.Type = Int64
		return func(c *Column, v parquet.Value) { c.I64 = append(c.I64, v.Int64()) }, nil
	case parquet.Float:
		c.Type = Float32
		return func(c *Column, v parquet.Value) { c.F32 = append(c.F32, v.Float()) }, nil
	case parquet.Double:
		c.Type = Float64
		return func(c *Column, v parquet.Value) { c.F64 = append(c.F64, v.Double()) }, nil
	case parquet.Int96:
		c.Type = Time
		return func(c *Column, v parquet.Value) {
			b := v.Int96()
			ns := int64(b[1])<<32 | int64(b[0])
			const julianUnixEpoch = 2_440_588
			c.Times = append(c.Times, time.Unix((int64(b[2])-julianUnixEpoch)*86_400, ns).UTC())
		}, nil
	}
	c.Type = String
	return func(c *Column, v parquet.Value) { c.Str = append(c.Str, string(v.ByteArray())) }, nil
}

func timestamps(c *Column, l *format.TimestampType) (convert, error) {
	c.Type = Time
	switch l.Unit.Value.(type) {
	case *format.MilliSeconds:
		return func(c *Column, v parquet.Value) { c.Times = append(c.Times, time.UnixMilli(v.Int64()).UTC()) }, nil
	case *format.MicroSeconds:
		return func(c *Column, v parquet.Value) { c.Times = append(c.Times, time.UnixMicro(v.Int64()).UTC()) }, nil
	case *format.NanoSeconds:
		return func(c *Column, v parquet.Value) { c.Times = append(c.Times, time.Unix(0, v.Int64()).UTC()) }, nil
	}
	return nil, errors.New("a timestamp of unknown unit")
}

// widestDecimal is how many bytes a decimal has at most: those of 76 digits.
const widestDecimal = 32

func decimals(c *Column, t parquet.Type, l *format.DecimalType) (convert, error) {
	c.Type = Float64
	if l.Scale < 0 || l.Scale > 76 {
		return nil, fmt.Errorf("a decimal of scale %d", l.Scale)
	}
	unit := math.Pow10(int(l.Scale))
	switch t.Kind() {
	case parquet.Int32:
		return func(c *Column, v parquet.Value) { c.F64 = append(c.F64, float64(v.Int32())/unit) }, nil
	case parquet.Int64:
		return func(c *Column, v parquet.Value) { c.F64 = append(c.F64, float64(v.Int64())/unit) }, nil
	}
	if t.Kind() != parquet.FixedLenByteArray || t.Length() < 1 || t.Length() > widestDecimal {
		return nil, fmt.Errorf("decimals as %s are not supported", t)
	}
	whole := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(l.Scale)), nil)
	return func(c *Column, v parquet.Value) { c.F64 = append(c.F64, decimal(v.ByteArray(), whole)) }, nil
}

// decimal is the number nearest to a signed integer, its highest byte first, over a unit.
func decimal(b []byte, unit *big.Int) float64 {
	n := new(big.Int).SetBytes(b)
	if len(b) > 0 && b[0] >= 0x80 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	f, _ := new(big.Rat).SetFrac(n, unit).Float64()
	return f
}

func unsigned(c *Column, k parquet.Kind) (convert, error) {
	if k == parquet.Int32 {
		c.Type = Int64
		return func(c *Column, v parquet.Value) { c.I64 = append(c.I64, int64(uint32(v.Int32()))) }, nil
	}
	c.Type = Float64
	return func(c *Column, v parquet.Value) { c.F64 = append(c.F64, float64(uint64(v.Int64()))) }, nil
}
