package table

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/engine"
)

// The NPY header is a Python dictionary of three keys.
var (
	npyDescr   = regexp.MustCompile(`'descr':\s*'([<>|=][a-zA-Z]\d+)'`)
	npyFortran = regexp.MustCompile(`'fortran_order':\s*(True|False)`)
	npyShape   = regexp.MustCompile(`'shape':\s*\(([0-9, ]*)\)`)
)

const npyMaxHeader = 64 << 10

type npyHeader struct {
	descr   string
	fortran bool
	shape   []int
}

// npyArray is the whole of a file.
type npyArray struct {
	npyHeader
	data  []byte
	width int // of an element
	get   func(c Column, rows int, at func(int) []byte) Column
}

func readNPYArray(f source, size int64, path string, limits Limits) (*npyArray, error) {
	h, start, err := readNPYHeader(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if h.fortran && len(h.shape) > 2 {
		return nil, fmt.Errorf("read %s: Fortran order of %d dimensions", path, len(h.shape))
	}
	cells, err := engine.Elements(h.shape)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	width, get, err := npyElement(h.descr)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(cells) > limits.Cells || int64(cells) != (size-start)/int64(width) || (size-start)%int64(width) != 0 {
		return nil, fmt.Errorf("read %s: shape %v of %s does not match %d bytes, or is over the limit of %d cells", path, h.shape, h.descr, size-start, limits.Cells)
	}
	data := make([]byte, cells*width)
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return &npyArray{h, data, width, get}, nil
}

// readNPY reads an array of one or more dimensions; all but the first are laid
// out as columns f0, f1, ...
func readNPY(f source, size int64, path string, limits Limits) (*Table, error) {
	h, err := readNPYArray(f, size, path, limits)
	if err != nil {
		return nil, err
	}
	if len(h.shape) == 0 {
		return nil, fmt.Errorf("read %s: a scalar, not a table", path)
	}
	rows, columns := h.shape[0], 1
	for _, d := range h.shape[1:] {
		columns *= d
	}
	if columns > maxColumns || columns == 0 && rows > 0 {
		return nil, fmt.Errorf("read %s: %d columns", path, columns)
	}
	t := &Table{Rows: rows}
	for j := range columns {
		at := func(i int) []byte {
			k := i*columns + j
			if h.fortran {
				k = j*rows + i
			}
			return h.data[k*h.width:]
		}
		t.Columns = append(t.Columns, h.get(Column{Name: "f" + strconv.Itoa(j)}, rows, at))
	}
	return t, nil
}

// OpenTensor reads an NPY file as it is, whatever its dimensions: FP32 and FP64 stay what
// they are, half precision becomes FP32, Boolean Bool and every integer INT64, which
// engine.Bind makes the model's type where no digit is lost.
func OpenTensor(path string) (*engine.Tensor, error) {
	var x *engine.Tensor
	_, err := openWith(path, Limits{}, func(f source, size int64, path string, limits Limits) (*Table, error) {
		h, err := readNPYArray(f, size, path, limits)
		if err != nil {
			return nil, err
		}
		x, err = h.tensor()
		return &Table{}, err
	})
	return x, err
}

func (h *npyArray) tensor() (*engine.Tensor, error) {
	n := len(h.data) / h.width
	c := h.get(Column{}, n, func(i int) []byte {
		if h.fortran && len(h.shape) == 2 {
			i = i%h.shape[1]*h.shape[0] + i/h.shape[1]
		}
		return h.data[i*h.width:]
	})
	switch {
	case c.Type == Float32:
		return engine.Of(c.F32, h.shape...)
	case c.Type == Float64:
		return engine.Of(c.F64, h.shape...)
	case strings.HasSuffix(h.descr, "b1"):
		v := make([]bool, n)
		for i, e := range c.I64 {
			v[i] = e != 0
		}
		return engine.Of(v, h.shape...)
	}
	return engine.Of(c.I64, h.shape...)
}

func readNPYHeader(f io.Reader) (h npyHeader, start int64, err error) {
	var fixed [8]byte
	if _, err := io.ReadFull(f, fixed[:]); err != nil || string(fixed[:6]) != "\x93NUMPY" {
		return h, 0, errors.New("not an NPY file")
	}
	lenBytes := 2
	if fixed[6] >= 2 {
		lenBytes = 4
	}
	if fixed[6] < 1 || fixed[6] > 3 {
		return h, 0, fmt.Errorf("NPY version %d is not known", fixed[6])
	}
	var raw [4]byte
	if _, err := io.ReadFull(f, raw[:lenBytes]); err != nil {
		return h, 0, fmt.Errorf("read NPY header: %w", err)
	}
	n := binary.LittleEndian.Uint32(raw[:])
	if n > npyMaxHeader {
		return h, 0, fmt.Errorf("NPY header of %d bytes", n)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(f, text); err != nil {
		return h, 0, fmt.Errorf("read NPY header: %w", err)
	}
	h, err = parseNPYHeader(text)
	return h, int64(8+lenBytes) + int64(n), err
}

func parseNPYHeader(text []byte) (npyHeader, error) {
	descr, fortran, shape := npyDescr.FindSubmatch(text), npyFortran.FindSubmatch(text), npyShape.FindSubmatch(text)
	if descr == nil || fortran == nil || shape == nil {
		return npyHeader{}, fmt.Errorf("NPY header %q: want descr of one number type, fortran_order and shape", bytes.TrimSpace(text))
	}
	h := npyHeader{descr: string(descr[1]), fortran: string(fortran[1]) == "True"}
	for tok := range strings.SplitSeq(string(shape[1]), ",") {
		if tok = strings.TrimSpace(tok); tok == "" {
			continue
		}
		d, err := strconv.Atoi(tok)
		if err != nil {
			return h, fmt.Errorf("NPY shape %q: %w", shape[1], err)
		}
		h.shape = append(h.shape, d)
	}
	return h, nil
}

// npyElement returns an element type's width and how to read a column of it.
func npyElement(descr string) (width int, get func(c Column, rows int, at func(int) []byte) Column, err error) {
	var order binary.ByteOrder = binary.LittleEndian
	if descr[0] == '>' {
		order = binary.BigEndian
	}
	integer := func(width int, read func([]byte) int64) (int, func(Column, int, func(int) []byte) Column, error) {
		return width, func(c Column, rows int, at func(int) []byte) Column {
			c.Type, c.I64 = Int64, make([]int64, rows)
			for i := range c.I64 {
				c.I64[i] = read(at(i))
			}
			return c
		}, nil
	}
	switch descr[1:] {
	case "f8":
		return 8, func(c Column, rows int, at func(int) []byte) Column {
			c.Type, c.F64 = Float64, make([]float64, rows)
			for i := range c.F64 {
				c.F64[i] = math.Float64frombits(order.Uint64(at(i)))
			}
			return c
		}, nil
	case "f4":
		return 4, func(c Column, rows int, at func(int) []byte) Column {
			c.Type, c.F32 = Float32, make([]float32, rows)
			for i := range c.F32 {
				c.F32[i] = math.Float32frombits(order.Uint32(at(i)))
			}
			return c
		}, nil
	case "f2":
		return 2, func(c Column, rows int, at func(int) []byte) Column {
			c.Type, c.F32 = Float32, make([]float32, rows)
			for i := range c.F32 {
				c.F32[i] = engine.HalfToFloat32(engine.Float16, order.Uint16(at(i)))
			}
			return c
		}, nil
	case "i8":
		return integer(8, func(b []byte) int64 { return int64(order.Uint64(b)) })
	case "i4":
		return integer(4, func(b []byte) int64 { return int64(int32(order.Uint32(b))) })
	case "i2":
		return integer(2, func(b []byte) int64 { return int64(int16(order.Uint16(b))) })
	case "i1":
		return integer(1, func(b []byte) int64 { return int64(int8(b[0])) })
	case "u4":
		return integer(4, func(b []byte) int64 { return int64(order.Uint32(b)) })
	case "u2":
		return integer(2, func(b []byte) int64 { return int64(order.Uint16(b)) })
	case "u1", "b1":
		return integer(1, func(b []byte) int64 { return int64(b[0]) })
	}
	return 0, nil, fmt.Errorf("NPY element type %q is not supported", descr)
}
