package clickhouse

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"unsafe"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// The driver appends to an array column value by value, each boxed: too slow for
// 30 features a row. Columns are therefore built here in the bytes of
// ClickHouse's Native format, which the driver's columns can decode in bulk.

// builder is one column being built.
type builder interface {
	// sections returns the column's bytes for n rows, state prefix included.
	sections() [][]byte
	reset()
}

// fixed builds a column of numbers.
type fixed struct{ buf []byte }

func (c *fixed) u16(v uint16)  { c.buf = binary.LittleEndian.AppendUint16(c.buf, v) }
func (c *fixed) u32(v uint32)  { c.buf = binary.LittleEndian.AppendUint32(c.buf, v) }
func (c *fixed) u64(v uint64)  { c.buf = binary.LittleEndian.AppendUint64(c.buf, v) }
func (c *fixed) i64(v int64)   { c.u64(uint64(v)) }
func (c *fixed) f64(v float64) { c.u64(math.Float64bits(v)) }

func (c *fixed) sections() [][]byte { return [][]byte{c.buf} }
func (c *fixed) reset()             { c.buf = c.buf[:0] }

// text builds a column of strings.
type text struct{ buf []byte }

func (c *text) add(s string) {
	c.buf = binary.AppendUvarint(c.buf, uint64(len(s)))
	c.buf = append(c.buf, s...)
}

func (c *text) sections() [][]byte { return [][]byte{c.buf} }
func (c *text) reset()             { c.buf = c.buf[:0] }

// lowCardinality builds a LowCardinality(String) column: a dictionary, whose
// first entry is the empty string, and a key a row.
type lowCardinality struct {
	index map[string]uint32
	dict  text
	keys  fixed
	n     int
	last  string
	key   uint32
	head  []byte
	tail  []byte
}

func (c *lowCardinality) add(s string) {
	if c.index == nil {
		c.index = map[string]uint32{"": 0}
		c.dict.add("")
		c.last, c.key = "", 0
	}
	if s != c.last {
		k, ok := c.index[s]
		if !ok {
			k = uint32(len(c.index))
			c.index[s] = k
			c.dict.add(s)
		}
		c.last, c.key = s, k
	}
	c.keys.u32(c.key)
	c.n++
}

// The Native form's constants: version of the dictionary's place, and the flags
// of 4-byte keys, additional keys present, dictionary to be updated.
const (
	lowCardinalityVersion = 1
	lowCardinalityFlags   = 2 | 1<<9 | 1<<10
)

func (c *lowCardinality) sections() [][]byte {
	prefix, body := c.parts()
	return append([][]byte{prefix}, body...)
}

// parts returns the prefix, which lies before the offsets of an array around the
// column, and the body, which is empty where there are no values.
func (c *lowCardinality) parts() (prefix []byte, body [][]byte) {
	c.head = binary.LittleEndian.AppendUint64(c.head[:0], lowCardinalityVersion)
	if c.n == 0 {
		return c.head, nil
	}
	c.head = binary.LittleEndian.AppendUint64(c.head, lowCardinalityFlags)
	c.head = binary.LittleEndian.AppendUint64(c.head, uint64(len(c.index)))
	c.tail = binary.LittleEndian.AppendUint64(c.tail[:0], uint64(c.n))
	return c.head[:8], [][]byte{c.head[8:], c.dict.buf, c.tail, c.keys.buf}
}

func (c *lowCardinality) reset() {
	c.index, c.n = nil, 0
	c.dict.reset()
	c.keys.reset()
}

// arrays builds a column of arrays of numbers or strings.
type arrays struct {
	offsets fixed
	values  []byte
	n       uint64
}

func (c *arrays) end(added int) {
	c.n += uint64(added)
	c.offsets.u64(c.n)
}

func (c *arrays) f32(v []float32) { c.raw(bytesOf(v), len(v)) }
func (c *arrays) f64(v []float64) { c.raw(bytesOf(v), len(v)) }
func (c *arrays) i64(v []int64)   { c.raw(bytesOf(v), len(v)) }
func (c *arrays) u16(v []uint16)  { c.raw(bytesOf(v), len(v)) }

func (c *arrays) raw(b []byte, n int) {
	c.values = append(c.values, b...)
	c.end(n)
}

func (c *arrays) str(v []string) {
	for _, s := range v {
		c.values = binary.AppendUvarint(c.values, uint64(len(s)))
		c.values = append(c.values, s...)
	}
	c.end(len(v))
}

func (c *arrays) sections() [][]byte { return [][]byte{c.offsets.buf, c.values} }

func (c *arrays) reset() {
	c.offsets.reset()
	c.values, c.n = c.values[:0], 0
}

// maps builds a column of Map(LowCardinality(String), String).
type maps struct {
	offsets fixed
	n       uint64
	keys    lowCardinality
	values  text
}

func (c *maps) add(m map[string]string) {
	for k, v := range m {
		c.keys.add(k)
		c.values.add(v)
	}
	c.n += uint64(len(m))
	c.offsets.u64(c.n)
}

func (c *maps) sections() [][]byte {
	prefix, body := c.keys.parts()
	return append(append([][]byte{prefix, c.offsets.buf}, body...), c.values.buf)
}

func (c *maps) reset() {
	c.offsets.reset()
	c.keys.reset()
	c.values.reset()
	c.n = 0
}

// lists builds a column of arrays of what another column holds.
type lists[T builder] struct {
	offsets fixed
	n       uint64
	values  T
}

func (c *lists[T]) end(added int) {
	c.n += uint64(added)
	c.offsets.u64(c.n)
}

// sections puts the offsets behind the prefix of the values, which is their first
// section.
func (c *lists[T]) sections() [][]byte {
	in := c.values.sections()
	return append([][]byte{in[0], c.offsets.buf}, in[1:]...)
}

func (c *lists[T]) reset() {
	c.offsets.reset()
	c.values.reset()
	c.n = 0
}

// bytesOf views numbers as bytes: ClickHouse's order is little-endian, as is
// every platform that this is built for (see the test).
func bytesOf[T float32 | float64 | int64 | uint16](v []T) []byte {
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*int(unsafe.Sizeof(v[0])))
}

// fill moves built columns into a prepared batch of the same columns in the same
// order.
func fill(batch driver.Batch, cols []builder, rows int) error {
	into := batch.Columns()
	if len(into) != len(cols) {
		return fmt.Errorf("fill batch: %d columns for %d", len(cols), len(into))
	}
	var sources []io.Reader
	for _, c := range cols {
		for _, s := range c.sections() {
			sources = append(sources, bytes.NewReader(s))
		}
	}
	r := proto.NewReader(io.MultiReader(sources...))
	for i, c := range into {
		if custom, ok := c.(column.CustomSerialization); ok {
			if err := custom.ReadStatePrefix(r); err != nil {
				return fmt.Errorf("fill column %s: %w", c.Name(), err)
			}
		}
		if err := c.Decode(r, rows); err != nil {
			return fmt.Errorf("fill column %s: %w", c.Name(), err)
		}
		if got := c.Rows(); got != rows {
			return fmt.Errorf("fill column %d (%s): %d rows, not %d", i, c.Name(), got, rows)
		}
	}
	return nil
}
