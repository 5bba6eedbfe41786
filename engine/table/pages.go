package table

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// The library believes a page: it makes room by the sizes and counts that the page's
// header and its runs claim, and inflates what is compressed to whatever size it has.
// pageCheck goes over the pages of a column first, in bounded memory, and refuses what
// the library would believe wrongly.
const (
	// maxPage bounds a page's bytes; writers make them of 1 MiB, DuckDB of 100.
	maxPage = 128 << 20
	// maxPageHeader bounds a page's header, whose statistics hold a least and a largest
	// value.
	maxPageHeader = 16 << 20
)

// plainDictionary is PLAIN_DICTIONARY, which old writers write.
const plainDictionary format.Encoding = 2

type pageCheck struct {
	f    io.ReaderAt
	size int64
	leaf *parquet.Column
	// rows are those of the file, which no page has more values than.
	rows int
	// head and data are used again.
	head, data []byte
	// plain and buffer hold what a page inflates to.
	plain  []byte
	buffer bytes.Buffer
}

// chunk checks the pages of one row group.
func (c *pageCheck) chunk(m *format.ColumnMetaData) error {
	if codec := c.leaf.Compression(); codec != nil && m.Codec != codec.CompressionCodec() {
		return errors.New("row groups of several compressions")
	}
	at := m.DataPageOffset
	if m.DictionaryPageOffset != 0 {
		at = m.DictionaryPageOffset
	}
	if at < 0 || m.TotalCompressedSize < 0 || at > c.size || m.TotalCompressedSize > c.size-at {
		return fmt.Errorf("pages of %d bytes at %d in a file of %d", m.TotalCompressedSize, at, c.size)
	}
	for end := at + m.TotalCompressedSize; at < end; {
		n, err := c.page(at, end, m.Codec)
		if err != nil {
			return fmt.Errorf("page at byte %d: %w", at, err)
		}
		at += n
	}
	return nil
}

// page checks the page at a byte of the file and returns how many it takes.
func (c *pageCheck) page(at, end int64, codec format.CompressionCodec) (int64, error) {
	head, n, err := c.header(at, end)
	if err != nil {
		return 0, err
	}
	at += int64(n)
	packed, plain := int64(head.CompressedPageSize), int64(head.UncompressedPageSize)
	switch {
	case packed < 0 || packed > end-at:
		return 0, fmt.Errorf("it claims %d bytes, %d are left of its column", packed, end-at)
	case packed > maxPage || plain < 0 || plain > maxPage:
		return 0, fmt.Errorf("pages of more than %d bytes are not supported (this claims %d, %d inflated): write smaller ones", maxPage, packed, plain)
	case codec == format.Uncompressed && plain > packed:
		return 0, fmt.Errorf("it claims %d bytes and has %d", plain, packed)
	}
	if c.data = sized(c.data, int(packed)); len(c.data) > 0 {
		if _, err := io.ReadFull(io.NewSectionReader(c.f, at, packed), c.data); err != nil {
			return 0, fmt.Errorf("read %d bytes: %w", packed, err)
		}
	}
	if err := c.values(&head, codec); err != nil {
		return 0, err
	}
	return int64(n) + packed, nil
}

func sized(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// header reads a page's header, looking at no more than it may take.
func (c *pageCheck) header(at, end int64) (head format.PageHeader, n int, err error) {
	for window := int64(512); ; window *= 8 {
		window = min(window, maxPageHeader, end-at)
		c.head = sized(c.head, int(window))
		if _, err := io.ReadFull(io.NewSectionReader(c.f, at, window), c.head); err != nil {
			return head, 0, fmt.Errorf("read its header: %w", err)
		}
		n, err = skimStruct(c.head)
		if err == nil {
			break
		}
		if window == min(maxPageHeader, end-at) {
			return head, 0, fmt.Errorf("its header: %w", err)
		}
	}
	if err := thrift.Unmarshal(new(thrift.CompactProtocol), c.head[:n], &head); err != nil {
		return head, 0, fmt.Errorf("its header: %w", err)
	}
	return head, n, nil
}

// values checks what a page holds against its header.
func (c *pageCheck) values(h *format.PageHeader, codec format.CompressionCodec) error {
	switch h.Type {
	case format.DictionaryPage:
		data, err := c.inflate(c.data, codec, int64(h.UncompressedPageSize))
		if err != nil {
			return err
		}
		// A value takes a byte, but a bool, of which there are no dictionaries.
		if n := h.DictionaryPageHeader.V.NumValues; n < 0 || int64(n) > int64(len(data)) {
			return fmt.Errorf("a dictionary of %d values in %d bytes", n, len(data))
		}
		if e := h.DictionaryPageHeader.V.Encoding; e != format.Plain && e != plainDictionary {
			return fmt.Errorf("a dictionary in %s", e)
		}
		return nil
	case format.DataPage:
		return c.first(h, codec)
	case format.DataPageV2:
		return c.second(h, codec)
	}
	return nil // the library passes over it
}

// first checks a data page of version 1, whose levels are compressed with its values.
func (c *pageCheck) first(h *format.PageHeader, codec format.CompressionCodec) error {
	v := &h.DataPageHeader.V
	if err := c.count(v.NumValues); err != nil {
		return err
	}
	data, err := c.inflate(c.data, codec, int64(h.UncompressedPageSize))
	if err != nil {
		return err
	}
	if c.leaf.MaxDefinitionLevel() > 0 {
		if len(data) < 4 || uint64(binary.LittleEndian.Uint32(data)) > uint64(len(data)-4) {
			return errors.New("its levels are cut off")
		}
		n := int(binary.LittleEndian.Uint32(data))
		if v.DefinitionLevelEncoding != format.RLE {
			return fmt.Errorf("levels in %s are not supported", v.DefinitionLevelEncoding)
		}
		if err := checkRuns(data[4:4+n], c.levelWidth(), v.NumValues); err != nil {
			return fmt.Errorf("its levels: %w", err)
		}
		data = data[4+n:]
	}
	return c.encoded(data, v.Encoding, v.NumValues)
}

// second checks a data page of version 2, whose levels are never compressed.
func (c *pageCheck) second(h *format.PageHeader, codec format.CompressionCodec) error {
	v := &h.DataPageHeaderV2.V
	if err := c.count(v.NumValues); err != nil {
		return err
	}
	repeated, defined := int64(v.RepetitionLevelsByteLength), int64(v.DefinitionLevelsByteLength)
	if repeated < 0 || defined < 0 || repeated+defined > int64(len(c.data)) || v.NumNulls < 0 || v.NumNulls > v.NumValues {
		return errors.New("its levels are cut off")
	}
	if c.leaf.MaxDefinitionLevel() > 0 {
		if err := checkRuns(c.data[repeated:repeated+defined], c.levelWidth(), v.NumValues); err != nil {
			return fmt.Errorf("its levels: %w", err)
		}
	}
	if v.IsCompressed.Valid && !v.IsCompressed.V {
		codec = format.Uncompressed
	}
	data, err := c.inflate(c.data[repeated+defined:], codec, int64(h.UncompressedPageSize))
	if err != nil {
		return err
	}
	return c.encoded(data, v.Encoding, v.NumValues)
}

func (c *pageCheck) levelWidth() int { return bits.Len(uint(c.leaf.MaxDefinitionLevel())) }

func (c *pageCheck) count(n int32) error {
	if n < 0 || int(n) > c.rows {
		return fmt.Errorf("it claims %d values, the file %d rows", n, c.rows)
	}
	return nil
}

// inflate returns what data is compressed from, which may have so many bytes.
func (c *pageCheck) inflate(data []byte, codec format.CompressionCodec, most int64) ([]byte, error) {
	var r io.Reader
	switch codec {
	case format.Uncompressed:
		return data, nil
	case format.Snappy:
		// Its length is in front, and bounded here, so that the library may decode it.
		if n, k := binary.Uvarint(data); k <= 0 || n > uint64(most) {
			return nil, fmt.Errorf("it inflates to %d bytes, its header says %d", n, most)
		}
		out, err := parquet.Snappy.Decode(c.plain[:cap(c.plain)], data)
		if err == nil {
			c.plain = out
		}
		return out, err
	case format.Gzip:
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		r = z
	case format.Zstd:
		z, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPage))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		r = z
	case format.Brotli:
		r = brotli.NewReader(bytes.NewReader(data))
	default:
		return nil, fmt.Errorf("compression %s is not supported", codec)
	}
	c.buffer.Reset()
	n, err := io.Copy(&c.buffer, io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if n > most {
		return nil, fmt.Errorf("it inflates to more than the %d bytes of its header", most)
	}
	return c.buffer.Bytes(), nil
}

// encoded checks the counts inside of encoded values.
func (c *pageCheck) encoded(data []byte, e format.Encoding, n int32) error {
	var err error
	if t := c.leaf.Type(); t.Kind() == parquet.FixedLenByteArray && e != plainDictionary && e != format.RLEDictionary {
		if wide := t.Length(); wide < 0 || int64(n) > maxPage/max(int64(wide), 1) {
			return fmt.Errorf("%d values of %d bytes each", n, wide)
		}
	}
	switch e {
	case plainDictionary, format.RLEDictionary:
		if len(data) == 0 {
			return nil // all values are missing
		}
		if data[0] > 32 {
			return fmt.Errorf("numbers of %d bits in its dictionary", data[0])
		}
		err = checkRuns(data[1:], int(data[0]), n)
	case format.RLE:
		if len(data) < 4 {
			return nil
		}
		err = checkRuns(data[4:], 1, n)
	case format.DeltaBinaryPacked, format.DeltaLengthByteArray:
		_, _, err = deltas(data, n)
	case format.DeltaByteArray:
		err = checkPrefixes(data, n)
	}
	if err != nil {
		return fmt.Errorf("its values: %w", err)
	}
	return nil
}

// checkRuns holds the runs of a run-length encoding of so many bits against the number
// of values, which the last group of eight may pass.
func checkRuns(data []byte, width int, n int32) error {
	total := uint64(0)
	for len(data) > 0 {
		head, k := binary.Uvarint(data)
		if k <= 0 {
			return errors.New("a damaged run")
		}
		data = data[k:]
		count, size := head>>1, uint64(width+7)/8
		if head&1 == 1 {
			if count > uint64(n)/8+64 {
				return fmt.Errorf("runs of more than %d values", n)
			}
			size = count * uint64(width)
			count *= 8
		}
		if count > uint64(n)+512 {
			return fmt.Errorf("runs of more than %d values", n)
		}
		if total += count; total > uint64(n)+512 {
			return fmt.Errorf("runs of more than %d values", n)
		}
		if size > uint64(len(data)) {
			return errors.New("a run that is cut off")
		}
		data = data[size:]
	}
	return nil
}

// deltas decodes DELTA_BINARY_PACKED numbers of at most so many and returns what
// follows them.
func deltas(data []byte, most int32) (values []int64, rest []byte, err error) {
	damaged := errors.New("damaged deltas")
	var head [3]uint64
	for i := range head {
		v, k := binary.Uvarint(data)
		if k <= 0 {
			return nil, nil, damaged
		}
		head[i], data = v, data[k:]
	}
	block, minis, total := head[0], head[1], head[2]
	last, k := binary.Varint(data)
	if k <= 0 || block == 0 || block > 1<<16 || minis == 0 || minis > block/32 || block%(32*minis) != 0 {
		return nil, nil, damaged
	}
	data = data[k:]
	if total > uint64(most) {
		return nil, nil, fmt.Errorf("%d deltas of %d values", total, most)
	}
	if total == 0 {
		return nil, data, nil
	}
	values = append(make([]int64, 0, total), last)
	for uint64(len(values)) < total {
		least, k := binary.Varint(data)
		if k <= 0 || uint64(len(data)-k) < minis {
			return nil, nil, damaged
		}
		widths := data[k:][:minis]
		data = data[k+int(minis):]
		for _, w := range widths {
			left := total - uint64(len(values))
			if left == 0 {
				break
			}
			mini := block / minis
			size := mini * uint64(w) / 8
			if w > 64 {
				return nil, nil, damaged
			}
			here := data[:min(size, uint64(len(data)))]
			if uint64(len(here)) < (min(mini, left)*uint64(w)+7)/8 {
				return nil, nil, damaged
			}
			for i := range min(mini, left) {
				last += least + int64(unpackBits(here, i*uint64(w), uint64(w)))
				values = append(values, last)
			}
			data = data[len(here):]
		}
	}
	return values, data, nil
}

// unpackBits is the number of width bits at a bit of data.
func unpackBits(data []byte, at, width uint64) (v uint64) {
	for got := uint64(0); got < width; {
		take := min(8-at%8, width-got)
		v |= uint64(data[at/8]>>(at%8)&(1<<take-1)) << got
		got, at = got+take, at+take
	}
	return v
}

// checkPrefixes adds up DELTA_BYTE_ARRAY values, each of which repeats the beginning of
// the one before it.
func checkPrefixes(data []byte, n int32) error {
	prefixes, data, err := deltas(data, n)
	if err != nil {
		return err
	}
	suffixes, data, err := deltas(data, n)
	if err != nil {
		return err
	}
	if len(prefixes) != len(suffixes) {
		return errors.New("damaged prefixes")
	}
	last, total, own := int64(0), int64(0), int64(0)
	for i, p := range prefixes {
		if p < 0 || p > last || suffixes[i] < 0 || suffixes[i] > int64(len(data)) {
			return errors.New("damaged prefixes")
		}
		last, own = p+suffixes[i], own+suffixes[i]
		if total += last; total > maxPage || own > int64(len(data)) {
			return fmt.Errorf("text of more than %d bytes in a page", maxPage)
		}
	}
	return nil
}
