package data

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"runtime"
	"slices"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

type codedRow struct {
	Time    int64    `parquet:"time,timestamp(millisecond)"`
	Delta   int64    `parquet:"delta,delta"`
	Short   int32    `parquet:"short,delta"`
	Split   float64  `parquet:"split,split"`
	Plain   float64  `parquet:"plain"`
	Dict    float64  `parquet:"dict,dict"`
	Bool    bool     `parquet:"bool"`
	Maybe   *float64 `parquet:"maybe,optional"`
	ID      string   `parquet:"id,dict"`
	Text    string   `parquet:"text"`
	Lengths string   `parquet:"lengths,delta"`
}

// codedFiles are files with the encodings and compressions that are read.
func codedFiles(t testing.TB, rows int) map[string][]byte {
	t.Helper()
	list := make([]codedRow, rows)
	for i := range list {
		r, x := &list[i], float64(i%7)
		r.Time, r.Delta, r.Short, r.Split, r.Plain, r.Dict, r.Bool = int64(i)*3600000, int64(i), int32(i), x, x+.5, x, i%3 == 0
		r.ID, r.Text, r.Lengths = "a", "some text", "some word"
		if i%5 != 0 {
			r.Maybe = &x
		}
	}
	files := map[string][]byte{}
	for _, codec := range []compress.Codec{&parquet.Uncompressed, &parquet.Snappy, &parquet.Gzip, &parquet.Brotli, &parquet.Zstd, &parquet.Lz4Raw} {
		for version := 1; version <= 2; version++ {
			var b bytes.Buffer
			w := parquet.NewGenericWriter[codedRow](&b, parquet.Compression(codec), parquet.DataPageVersion(version), parquet.PageBufferSize(2000))
			if _, err := w.Write(list); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			files[fmt.Sprint(codec, " ", version)] = b.Bytes()
		}
	}
	return files
}

var codedColumns = ReadOptions{
	Time: "time", ID: "id", Static: []string{"text", "lengths"}, Missing: Mask,
	Values: []string{"delta", "short", "split", "plain", "dict", "bool", "maybe"},
}

func readCoded(b []byte) (*Panel, error) {
	return ReadPanelFrom(context.Background(), "a.parquet", bytes.NewReader(b), &codedColumns)
}

// allocated is how many bytes f allocates, freed ones included.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

const ceiling = 400 << 20 // of a damaged file of some KB; pages of texts may have 128 MB

func checkDamaged(t *testing.T, b []byte) {
	t.Helper()
	var err error
	if n := allocated(func() { _, err = readCoded(b) }); n > ceiling {
		t.Fatalf("a file of %d bytes allocated %d MB: %v", len(b), n>>20, err)
	}
	var input *InputError
	if err != nil && !errors.As(err, &input) {
		t.Fatalf("want an InputError, got %T: %v", err, err)
	}
}

func TestParquetPagesOfAllEncodings(t *testing.T) {
	for name, b := range codedFiles(t, 300) {
		p, err := readCoded(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s := p.Series[0]
		for i := range 300 {
			x := float64(i % 7)
			want := []float64{float64(i), float64(i), x, x + .5, x, 0, x}
			if i%3 == 0 {
				want[5] = 1
			}
			for j, w := range want {
				if got := s.Values[j][i]; got != w && (j != 6 || i%5 != 0 || got == got) {
					t.Fatalf("%s: row %d of %s is %v, want %v", name, i, codedColumns.Values[j], got, w)
				}
			}
		}
	}
}

// TestParquetDamaged changes bits of every file, from one seed.
func TestParquetDamaged(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	files := codedFiles(t, 120)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for range 60 {
			b := bytes.Clone(files[name])
			for range 1 + r.IntN(3) {
				at := r.IntN(len(b))
				if r.IntN(2) == 0 { // the footer and its neighbours
					at = len(b) - 1 - r.IntN(min(len(b), 3000))
				}
				b[at] ^= 1 << r.IntN(8)
			}
			checkDamaged(t, b)
		}
	}
}

// TestParquetHeadersThatAskForTooMuch writes files by hand whose headers claim more
// than they hold.
func TestParquetHeadersThatAskForTooMuch(t *testing.T) {
	const rows = 10
	indexes := func(run uint64) []byte { // of width 1, one run
		return append(binary.AppendUvarint([]byte{1}, run<<1), 0)
	}
	numbers := func(n int) []byte { return make([]byte, 8*n) }
	big := func(n uint64) []byte { // numbers as differences: blocks of 128, 4 parts
		return append(binary.AppendUvarint([]byte{128, 1, 4}, n), 2)
	}
	zero := handPage{kind: format.DictionaryPage, encoding: format.Plain, values: 1, data: numbers(1)}
	for _, c := range []struct {
		name   string
		want   string
		footer func(*format.FileMetaData)
		pages  []handPage
	}{
		{name: "as it should be", pages: []handPage{zero, {encoding: format.RLEDictionary, values: rows, data: indexes(rows)}}},
		{"run", "a run of 2147483647 values in a page of 10", nil, []handPage{zero, {encoding: format.RLEDictionary, values: rows, data: indexes(math.MaxInt32)}}},
		{"packed group without bits", "a run of 2147483640 values|header", nil, []handPage{zero, {encoding: format.RLEDictionary, values: rows, data: binary.AppendUvarint([]byte{0}, math.MaxInt32/8<<1|1)}}},
		{"dictionary", "a dictionary of 2147483647 values in 8 bytes", nil, []handPage{{kind: format.DictionaryPage, encoding: format.Plain, values: math.MaxInt32, data: numbers(1)}}},
		{"values", "has 2147483647 values, 10 are left", nil, []handPage{{encoding: format.Plain, values: math.MaxInt32, data: numbers(1)}}},
		{"too few", "lack 9 of 10 values", nil, []handPage{{encoding: format.Plain, values: 1, data: numbers(1)}}},
		{"page", "10 values in 2147483647 bytes", nil, []handPage{{encoding: format.Plain, values: rows, data: numbers(rows), size: math.MaxInt32}}},
		{"differences", "2147483647 numbers in blocks", nil, []handPage{{encoding: format.DeltaBinaryPacked, values: rows, data: big(math.MaxInt32)}}},
		{"rows", "in a row group of 10 rows", func(m *format.FileMetaData) { m.RowGroups[0].Columns[0].MetaData.NumValues = 1 << 40 }, nil},
		{"rows of the file", "10 rows in its row groups", func(m *format.FileMetaData) { m.NumRows = 1 << 40 }, nil},
		{"place", "the file has", func(m *format.FileMetaData) { m.RowGroups[0].Columns[0].MetaData.TotalCompressedSize = 1 << 40 }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := handFile(t, rows, c.footer, c.pages...)
			var err error
			n := allocated(func() {
				_, err = ReadPanelFrom(context.Background(), "a.parquet", bytes.NewReader(b), &ReadOptions{Values: []string{"y"}})
			})
			if n > 4<<20 {
				t.Errorf("%d bytes allocated %d", len(b), n)
			}
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !regexp.MustCompile(c.want).MatchString(err.Error()) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	// Lists of the footer: 2^31-1 schema elements.
	footer := append(binary.AppendUvarint([]byte{0x15, 2, 0x19, 0xfc}, math.MaxInt32), make([]byte, 100)...)
	b := append([]byte("PAR1PAR1PAR1"), footer...)
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(footer))), "PAR1"...)
	var err error
	if n := allocated(func() { _, err = readCoded(b) }); n > 4<<20 || err == nil {
		t.Errorf("a list of the footer: %d bytes allocated, %v", n, err)
	}
}

// handPage is a page as it is written, data without compression.
type handPage struct {
	kind     format.PageType
	encoding format.Encoding
	values   int32
	data     []byte
	size     int32 // claimed; 0 is the right one
}

// handFile is a Parquet file of one column y of required DOUBLE.
func handFile(t *testing.T, rows int64, change func(*format.FileMetaData), pages ...handPage) []byte {
	t.Helper()
	var empty bytes.Buffer
	w := parquet.NewGenericWriter[struct {
		Y float64 `parquet:"y"`
	}](&empty, parquet.Compression(&parquet.Uncompressed))
	for range rows {
		if _, err := w.Write([]struct {
			Y float64 `parquet:"y"`
		}{{1}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(empty.Bytes()), int64(empty.Len()))
	if err != nil {
		t.Fatal(err)
	}
	meta := f.Metadata()
	b := empty.Bytes()
	if len(pages) > 0 {
		b = []byte("PAR1")
		for _, p := range pages {
			h := format.PageHeader{Type: p.kind, UncompressedPageSize: int32(len(p.data)), CompressedPageSize: int32(len(p.data))}
			if p.size > 0 {
				h.UncompressedPageSize = p.size
			}
			if p.kind == format.DictionaryPage {
				h.DictionaryPageHeader = thrift.New(format.DictionaryPageHeader{NumValues: p.values, Encoding: p.encoding})
			} else {
				h.DataPageHeader = thrift.New(format.DataPageHeader{NumValues: p.values, Encoding: p.encoding, DefinitionLevelEncoding: format.RLE, RepetitionLevelEncoding: format.RLE})
			}
			b = append(append(b, thrifted(t, h)...), p.data...)
		}
		column := &meta.RowGroups[0].Columns[0].MetaData
		column.DataPageOffset, column.DictionaryPageOffset, column.TotalCompressedSize = 4, 0, int64(len(b)-4)
	}
	if change != nil {
		change(meta)
	}
	footer := thrifted(t, *meta)
	b = append(b, footer...)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(footer))), "PAR1"...)
}

func thrifted(t *testing.T, v any) []byte {
	t.Helper()
	b, err := thrift.Marshal(new(thrift.CompactProtocol), v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzParquet(f *testing.F) {
	for _, b := range codedFiles(f, 20) {
		f.Add(b)
	}
	f.Fuzz(checkDamaged)
}
