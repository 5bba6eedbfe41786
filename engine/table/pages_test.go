package table

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

type pageRow struct {
	Plain  string   `parquet:"plain,plain"`
	Prefix string   `parquet:"prefix,delta"`
	Dict   *string  `parquet:"dict,dict,optional"`
	Count  int64    `parquet:"count,delta"`
	Small  int32    `parquet:"small,delta"`
	Double float64  `parquet:"double,split"`
	Maybe  *float64 `parquet:"maybe,optional"`
	Flag   bool     `parquet:"flag"`
}

func pageRows(n int) []pageRow {
	rows := make([]pageRow, n)
	for i := range rows {
		text := fmt.Sprintf("text %d", i/3)
		rows[i] = pageRow{Plain: text, Prefix: text, Count: int64(i) * int64(i) * 7919, Small: int32(i%17 - 8), Double: float64(i) / 3, Flag: i%3 == 0}
		if i%5 != 0 {
			v := float64(i)
			rows[i].Dict, rows[i].Maybe = &text, &v
		}
	}
	return rows
}

// TestPagesOfEveryForm reads what pages may be written as, each of which the check of
// pages has to understand.
func TestPagesOfEveryForm(t *testing.T) {
	rows := pageRows(3000)
	for _, codec := range []compress.Codec{&parquet.Uncompressed, &parquet.Snappy, &parquet.Gzip, &parquet.Zstd, &parquet.Brotli} {
		for version := 1; version <= 2; version++ {
			t.Run(fmt.Sprint(codec, " ", version), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "rows.parquet")
				if err := parquet.WriteFile(path, rows, parquet.Compression(codec), parquet.DataPageVersion(version), parquet.PageBufferSize(4096)); err != nil {
					t.Fatal(err)
				}
				got, err := Open(path)
				if err != nil {
					t.Fatal(err)
				}
				if got.Rows != len(rows) {
					t.Fatalf("%d rows", got.Rows)
				}
				for i, r := range rows {
					flag := int64(0)
					if r.Flag {
						flag = 1
					}
					switch {
					case got.Column("plain").Str[i] != r.Plain, got.Column("prefix").Str[i] != r.Prefix, got.Column("count").I64[i] != r.Count,
						got.Column("small").I64[i] != int64(r.Small), got.Column("double").F64[i] != r.Double, got.Column("flag").I64[i] != flag,
						got.Column("dict").Missing(i) != (r.Dict == nil), got.Column("maybe").Missing(i) != (r.Maybe == nil),
						r.Dict != nil && got.Column("dict").Str[i] != *r.Dict, r.Maybe != nil && got.Column("maybe").F64[i] != *r.Maybe:
						t.Fatalf("row %d is %+v", i, r)
					}
				}
			})
		}
	}
}

// forged is a file whose first page, which is its only one, has another header or other
// bytes, and whose metadata says other things.
func forged(t *testing.T, file []byte, page func(h *format.PageHeader, data []byte) []byte, meta func(m *format.FileMetaData)) []byte {
	t.Helper()
	protocol := new(thrift.CompactProtocol)
	n := int(binary.LittleEndian.Uint32(file[len(file)-8:]))
	var m format.FileMetaData
	if err := thrift.Unmarshal(protocol, file[len(file)-8-n:len(file)-8], &m); err != nil {
		t.Fatal(err)
	}
	column := &m.RowGroups[0].Columns[0].MetaData
	at := int(column.DataPageOffset)
	if column.DictionaryPageOffset != 0 {
		at = int(column.DictionaryPageOffset)
	}
	chunk := file[at:][:column.TotalCompressedSize]
	k, err := skimStruct(chunk)
	if err != nil {
		t.Fatal(err)
	}
	var h format.PageHeader
	if err := thrift.Unmarshal(protocol, chunk[:k], &h); err != nil {
		t.Fatal(err)
	}
	data, after := chunk[k:][:h.CompressedPageSize], chunk[k+int(h.CompressedPageSize):]
	if page != nil {
		data = page(&h, data)
		h.CRC = 0
	}
	head, err := thrift.Marshal(protocol, &h)
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.NewBufferString("PAR1")
	out.Write(head)
	out.Write(data)
	out.Write(after)
	column.TotalCompressedSize = int64(out.Len() - 4)
	if column.DictionaryPageOffset != 0 {
		column.DictionaryPageOffset = 4
		column.DataPageOffset = int64(4 + len(head) + len(data))
	} else {
		column.DataPageOffset = 4
	}
	if meta != nil {
		meta(&m)
	}
	footer, err := thrift.Marshal(protocol, &m)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(footer)
	out.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(footer))))
	out.WriteString("PAR1")
	return out.Bytes()
}

func oneColumn[T any](t *testing.T, rows []T, options ...parquet.WriterOption) []byte {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[T](&b, options...)
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestForgedPages: files of a few bytes that claim to be gigabytes are refused, by less
// memory than they claim.
func TestForgedPages(t *testing.T) {
	type number struct {
		A float64 `parquet:"a,plain"`
	}
	type dictionary struct {
		A string `parquet:"a,dict"`
	}
	type delta struct {
		A int64 `parquet:"a,delta"`
	}
	type prefix struct {
		A string `parquet:"a,delta"`
	}
	type optional struct {
		A *float64 `parquet:"a,plain,optional"`
	}
	v1 := parquet.DataPageVersion(1)
	numbers := make([]number, 100)
	plain := oneColumn(t, numbers, parquet.Compression(&parquet.Uncompressed), v1)
	zipped := map[string][]byte{}
	for _, codec := range []compress.Codec{&parquet.Snappy, &parquet.Gzip, &parquet.Zstd, &parquet.Brotli} {
		zipped[codec.String()] = oneColumn(t, numbers, parquet.Compression(codec), v1)
	}
	huge := func(h *format.PageHeader, data []byte) []byte { h.UncompressedPageSize = 1<<31 - 1; return data }
	runs := binary.AppendUvarint(nil, (1<<31-1)<<1)
	tests := map[string][]byte{
		"compressed size": forged(t, plain, func(h *format.PageHeader, data []byte) []byte { h.CompressedPageSize = 1<<31 - 1; return data }, nil),
		"plain size":      forged(t, plain, huge, nil),
		"values": forged(t, oneColumn(t, make([]dictionary, 100), v1), func(h *format.PageHeader, data []byte) []byte {
			h.DictionaryPageHeader.V.NumValues = 1<<31 - 1
			return data
		}, nil),
		"more values than rows": forged(t, plain, func(h *format.PageHeader, data []byte) []byte {
			h.DataPageHeader.V.NumValues = 1<<31 - 1
			return data
		}, nil),
		"rows": forged(t, plain, nil, func(m *format.FileMetaData) { m.NumRows = 400_000_000; m.RowGroups[0].NumRows = 400_000_000 }),
		"runs of levels": forged(t, oneColumn(t, make([]optional, 100), v1, parquet.Compression(&parquet.Uncompressed)), func(h *format.PageHeader, _ []byte) []byte {
			levels := append(bytes.Clone(runs), 0)
			data := append(binary.LittleEndian.AppendUint32(nil, uint32(len(levels))), levels...)
			h.CompressedPageSize, h.UncompressedPageSize = int32(len(data)), int32(len(data))
			return data
		}, nil),
		"deltas": forged(t, oneColumn(t, make([]delta, 100), v1, parquet.Compression(&parquet.Uncompressed)), func(h *format.PageHeader, _ []byte) []byte {
			data := binary.AppendUvarint([]byte{128, 1, 4}, 1<<31-1)
			data = append(data, 0, 0, 0, 0, 0, 0)
			h.CompressedPageSize, h.UncompressedPageSize = int32(len(data)), int32(len(data))
			return data
		}, nil),
		"prefixes": forged(t, oneColumn(t, make([]prefix, 4000), v1, parquet.Compression(&parquet.Uncompressed), parquet.PageBufferSize(1<<20)), func(h *format.PageHeader, _ []byte) []byte {
			h.DataPageHeader.V.Encoding = format.DeltaByteArray
			long := 1 << 20
			data := constantDeltas(0, long, 4000)
			data = append(data, constantDeltas(long, 0, 4000)...)
			data = append(data, bytes.Repeat([]byte("x"), long)...)
			h.CompressedPageSize, h.UncompressedPageSize = int32(len(data)), int32(len(data))
			return data
		}, nil),
		"columns": forged(t, plain, nil, func(m *format.FileMetaData) { m.RowGroups[0].Columns = nil }),
		"depth": forged(t, plain, nil, func(m *format.FileMetaData) {
			leaf := m.Schema[1]
			m.Schema = m.Schema[:1]
			for range 200_000 {
				m.Schema = append(m.Schema, format.SchemaElement{Name: "g", NumChildren: thrift.Null[int32]{V: 1, Valid: true}})
			}
			m.Schema = append(m.Schema, leaf)
		}),
		// Field 2 of the metadata, a list of 2^31-1 structs.
		"a list in the metadata": append(append([]byte("PAR1"), 0x29, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0, 0), append(binary.LittleEndian.AppendUint32(nil, 9), "PAR1"...)...),
	}
	for name, file := range zipped {
		tests[name+" size"] = forged(t, file, huge, nil)
	}
	for _, codec := range []compress.Codec{&parquet.Gzip, &parquet.Zstd, &parquet.Brotli, &parquet.Snappy} {
		bomb, err := codec.Encode(nil, make([]byte, 300<<20))
		if err != nil {
			t.Fatal(err)
		}
		tests[codec.String()+" inflates"] = forged(t, zipped[codec.String()], func(h *format.PageHeader, _ []byte) []byte {
			h.CompressedPageSize = int32(len(bomb))
			return bomb
		}, nil)
	}
	for name, file := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "forged.parquet")
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Open(path)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Fatal("it was read")
			}
			t.Log(err)
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 300<<20 {
				t.Errorf("it took %d MiB", grown>>20)
			}
		})
	}
}

// constantDeltas is first, and then n-1 times then, in DELTA_BINARY_PACKED.
func constantDeltas(first, then, n int) []byte {
	b := binary.AppendUvarint(nil, 128)
	b = binary.AppendUvarint(b, 4)
	b = binary.AppendUvarint(b, uint64(n))
	b = binary.AppendVarint(b, int64(first))
	step := int64(then - first)
	for done := 1; done < n; done += 128 {
		// The first step of all has 32 bits of its own: the rest repeats then.
		if done > 1 {
			b = append(binary.AppendVarint(b, 0), 0, 0, 0, 0)
			continue
		}
		low := min(step, 0)
		b = append(binary.AppendVarint(b, low), 32, 32, 32, 32)
		for i := range 128 {
			d := int64(0)
			if i == 0 {
				d = step
			}
			b = binary.LittleEndian.AppendUint32(b, uint32(d-low))
		}
	}
	return b
}

// TestOneTextInEveryRow: a dictionary of one long text, to which every row points.
func TestOneTextInEveryRow(t *testing.T) {
	type row struct {
		A string `parquet:"a,dict"`
	}
	rows := make([]row, 2000)
	text := strings.Repeat("long ", 1<<16)
	for i := range rows {
		rows[i].A = text
	}
	path := filepath.Join(t.TempDir(), "text.parquet")
	if err := parquet.WriteFile(path, rows, parquet.Compression(&parquet.Zstd)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "512 MiB") {
		t.Fatalf("error %v, want one about the limit", err)
	}
	if got, err := OpenLimited(path, Limits{Memory: 1 << 30}); err != nil || got.Rows != len(rows) {
		t.Fatalf("error %v under a higher limit", err)
	}
}
