package model

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// raw builds the bytes of a file from a header text and data.
func raw(header string, data []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

func TestTensorsRoundTrip(t *testing.T) {
	nan := math.Float32frombits(0x7fc01234)
	big := make([]float32, 10_001)
	ids := make([]int64, 5_000)
	for i := range big {
		big[i] = float32(i) * 0.1
	}
	for i := range ids {
		ids[i] = int64(i) - 1<<62
	}
	want := []Tensor{
		{Name: "rnn.weight_ih_l0", Dims: []int{2, 3}, Data: []float32{0, -1, nan, float32(math.Inf(-1)), 1e-45, math.MaxFloat32}},
		{Name: "ids", Dims: []int{5_000}, Ints: ids},
		{Name: "scalar", Dims: []int{}, Data: []float32{7}},
		{Name: "empty", Dims: []int{4, 0}, Data: []float32{}},
		{Name: "größe \"<&>\"", Dims: []int{73, 137}, Data: big},
	}
	meta := map[string]string{"b": "2", "a": `{"x": [1, "\u0000"]}`}
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := WriteTensors(path, want, meta); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := binary.LittleEndian.Uint64(first); n%8 != 0 {
		t.Errorf("header of %d bytes: the data is not aligned", n)
	}
	f, err := ReadTensors(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(f.Meta, meta) {
		t.Errorf("metadata %v, want %v", f.Meta, meta)
	}
	if len(f.Tensors) != len(want) {
		t.Fatalf("%d tensors, want %d", len(f.Tensors), len(want))
	}
	for i, w := range want {
		got := f.Tensors[i]
		if got.Name != w.Name || !reflect.DeepEqual(got.Dims, w.Dims) || !reflect.DeepEqual(got.Ints, w.Ints) || !sameBits(got.Data, w.Data) {
			t.Errorf("tensor %d came back as %s %v", i, got.Name, got.Dims)
		}
		if f.Lookup(w.Name) != &f.Tensors[i] {
			t.Errorf("Lookup(%q) does not find it", w.Name)
		}
	}
	if f.Lookup("none") != nil {
		t.Error("Lookup finds a tensor that is not there")
	}
	if err := WriteTensors(path, f.Tensors, f.Meta); err != nil {
		t.Fatal(err)
	}
	if second, _ := os.ReadFile(path); !bytes.Equal(first, second) {
		t.Error("written again, the bytes differ")
	}
}

func sameBits(a, b []float32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return false
		}
	}
	return true
}

func TestReadWidens(t *testing.T) {
	le := binary.LittleEndian
	var data []byte
	halves := []uint16{0x0000, 0x8000, 0x3c00, 0xc000, 0x7bff, 0x0001, 0x83ff, 0x7c00, 0xfc00, 0x3555}
	for _, h := range halves {
		data = le.AppendUint16(data, h)
	}
	for _, h := range []uint16{0x3f80, 0xc040} {
		data = le.AppendUint16(data, h)
	}
	for _, v := range []int32{-5, math.MaxInt32} {
		data = le.AppendUint32(data, uint32(v))
	}
	b := raw(`{"i":{"dtype":"I32","shape":[2],"data_offsets":[24,32]},
		"h":{"dtype":"F16","shape":[10],"data_offsets":[0,20]},
		"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[20,24]}}   `, data)
	f, err := decode("x", bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	inf := float32(math.Inf(1))
	wantH := []float32{0, float32(math.Copysign(0, -1)), 1, -2, 65504, 0x1p-24, -1023 * 0x1p-24, inf, -inf, 0x555p-12}
	if got := f.Lookup("h").Data; !sameBits(got, wantH) {
		t.Errorf("F16: %v, want %v", got, wantH)
	}
	if got := f.Lookup("b").Data; !sameBits(got, []float32{1, -3}) {
		t.Errorf("BF16: %v", got)
	}
	if got := f.Lookup("i").Ints; !reflect.DeepEqual(got, []int64{-5, math.MaxInt32}) {
		t.Errorf("I32: %v", got)
	}
	if f.Tensors[0].Name != "h" || f.Tensors[2].Name != "i" {
		t.Error("tensors are not in the order of their bytes")
	}
}

// TestReadRefuses goes through every way a file can be unsound.
func TestReadRefuses(t *testing.T) {
	one := func(fields string) []byte { return raw(`{"w":{`+fields+`}}`, make([]byte, 8)) }
	good := `"dtype":"F32","shape":[2],"data_offsets":[0,8]`
	huge := binary.LittleEndian.AppendUint64(nil, 1<<63)
	for _, c := range []struct {
		name string
		file []byte
		want string // part of the message
	}{
		{"empty", nil, "expected at least 8 bytes, got 0"},
		{"short", []byte("abc"), "got 3"},
		{"huge header", append(huge, "{}"...), "at most 100000000"},
		{"header past the end", raw("{}", nil)[:9], "should have 2 bytes, only 1"},
		{"text file", []byte("time,value\n2024-01-01,3\n"), "not a safetensors file"},
		{"not JSON", raw("hello", nil), "expected a JSON object"},
		{"array", raw("[]", nil), "expected a JSON object"},
		{"empty header", raw("", nil), "expected a JSON object"},
		{"cut JSON", raw(`{"w":{`+good, make([]byte, 8)), "tensor w: header: "},
		{"cut after entry", raw(`{"w":{`+good+`}`, make([]byte, 8)), "not valid JSON"},
		{"after JSON", raw(`{"w":{`+good+`}} x`, make([]byte, 8)), "nothing after"},
		{"duplicate", raw(`{"w":{`+good+`},"w":{`+good+`}}`, make([]byte, 8)), "tensor w: named twice"},
		{"metadata type", raw(`{"__metadata__":{"a":1}}`, nil), "expected an object of strings"},
		{"nameless", raw(`{"":{`+good+`}}`, make([]byte, 8)), "no name"},
		{"null entry", raw(`{"w":null}`, nil), "expected one of the types BF16, BOOL, F16"},
		{"dtype", one(`"dtype":"C64","shape":[1],"data_offsets":[0,8]`), `U32, U8, got "C64"`},
		{"no shape", one(`"dtype":"F32","data_offsets":[0,8]`), "no shape"},
		{"no offsets", one(`"dtype":"F32","shape":[2]`), "two data_offsets, got 0"},
		{"three offsets", one(`"dtype":"F32","shape":[2],"data_offsets":[0,8,9]`), "two data_offsets, got 3"},
		{"negative offset", one(`"dtype":"F32","shape":[2],"data_offsets":[-8,0]`), "not a range"},
		{"backward offset", one(`"dtype":"F32","shape":[2],"data_offsets":[8,0]`), "not a range"},
		{"negative dimension", one(`"dtype":"F32","shape":[-2],"data_offsets":[0,8]`), "dimension 0 of the shape is -2"},
		{"fraction", one(`"dtype":"F32","shape":[2.5],"data_offsets":[0,8]`), "tensor w: header:"},
		{"overflow", one(`"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]`), "more elements than memory"},
		{"overflow to 2", one(`"dtype":"F32","shape":[9223372036854775807,2],"data_offsets":[0,8]`), "more elements than memory"},
		{"size", one(`"dtype":"F32","shape":[3],"data_offsets":[0,8]`), "needs 12 bytes, data_offsets give 8"},
		{"out of range", one(`"dtype":"F32","shape":[4],"data_offsets":[0,16]`), "truncated file"},
		{"too much data", raw(`{"w":{`+good+`}}`, make([]byte, 9)), "expected 8 bytes of data, got 9"},
		{"hole", one(`"dtype":"F32","shape":[1],"data_offsets":[4,8]`), "belong to no tensor"},
		{"overlap", raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, make([]byte, 8)), "tensor b: its bytes 4 to 8 overlap"},
		{"control characters", raw(`{"a\nb":{`+good[:13]+`}}`, nil), "tensor a?b:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.safetensors")
			if err := os.WriteFile(path, c.file, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := ReadTensors(path)
			checkFileError(t, err, path, c.want)
		})
	}
}

// checkFileError wants a one-line *FileError that names path and contains want.
func checkFileError(t *testing.T, err error, path, want string) {
	t.Helper()
	var fe *FileError
	if !errors.As(err, &fe) {
		t.Fatalf("got %v (%T), want a *FileError", err, err)
	}
	msg := err.Error()
	if fe.File != path || !strings.HasPrefix(msg, path+": ") || !strings.Contains(msg, want) || strings.Contains(msg, "\n") {
		t.Errorf("got %q, want one line that names %s and says %q", msg, path, want)
	}
}

func TestReadMissingAndDirectory(t *testing.T) {
	dir := t.TempDir()
	_, err := ReadTensors(filepath.Join(dir, "none"))
	checkFileError(t, err, filepath.Join(dir, "none"), "cannot be read: ")
	if !errors.Is(err, os.ErrNotExist) {
		t.Error("a missing file does not unwrap to ErrNotExist")
	}
	_, err = ReadTensors(dir)
	checkFileError(t, err, dir, "got a directory")
}

// TestReadEveryTruncation cuts a sound file at each byte.
func TestReadEveryTruncation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.safetensors")
	if err := WriteTensors(path, []Tensor{{Name: "a", Dims: []int{3}, Data: []float32{1, 2, 3}}, {Name: "b", Dims: []int{1}, Ints: []int64{4}}}, nil); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		if _, err := decode(path, bytes.NewReader(b[:n]), int64(n)); err == nil {
			t.Errorf("the first %d of %d bytes are accepted", n, len(b))
		}
	}
}

// TestReadBoundedMemory reads small files that promise gigabytes.
func TestReadBoundedMemory(t *testing.T) {
	for _, b := range [][]byte{
		append(binary.LittleEndian.AppendUint64(nil, 99_999_999), "{}"...),
		raw(`{"w":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}`, nil),
		raw(`{"w":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]},"v":{"dtype":"I64","shape":[500000000],"data_offsets":[0,4000000000]}}`, nil),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := decode("x", bytes.NewReader(b), int64(len(b)))
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%.40q is accepted", b)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
			t.Errorf("%.40q: %d bytes allocated for a file of %d", b, got, len(b))
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	dir := t.TempDir()
	for want, ts := range map[string][]Tensor{
		"used twice":    {{Name: "a", Dims: []int{1}, Data: []float32{1}}, {Name: "a", Dims: []int{1}, Data: []float32{1}}},
		"reserved":      {{Name: metaKey, Dims: []int{1}, Data: []float32{1}}},
		"not UTF-8":     {{Name: "\xff", Dims: []int{1}, Data: []float32{1}}},
		"needs 6 value": {{Name: "a", Dims: []int{2, 3}, Data: []float32{1}}},
	} {
		err := WriteTensors(filepath.Join(dir, "x"), ts, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if es, _ := os.ReadDir(dir); len(es) != 0 {
		t.Errorf("refused, but %v was written", es)
	}
}

// FuzzReadTensors wants no panic, memory within bounds, and that what is accepted survives a round trip.
func FuzzReadTensors(f *testing.F) {
	f.Add(raw(`{}`, nil))
	f.Add(raw(`{"__metadata__":{"k":"v"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, make([]byte, 8)))
	f.Add(raw(`{"w":{"dtype":"BF16","shape":[1,1],"data_offsets":[0,2]},"i":{"dtype":"I64","shape":[],"data_offsets":[2,10]}}`, make([]byte, 10)))
	f.Add(raw(`{"__metadata__":{"carousel.rest":"types"},"w":{"dtype":"U8","shape":[1,2],"data_offsets":[0,2]},"w.scale":{"dtype":"F32","shape":[1],"data_offsets":[2,6]},"w.shape":{"dtype":"I64","shape":[2],"data_offsets":[6,22]}}`,
		[]byte{0x97, 2, 0, 0, 0x80, 0x3f, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0}))
	f.Add(raw(`{"w":{"dtype":"F16","shape":[0,9],"data_offsets":[0,0]}}`, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decode("x", bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("message of several lines: %q", err)
			}
			return
		}
		var out bytes.Buffer
		if err := encode(&out, got.Tensors, got.Meta); err != nil {
			t.Fatal(err)
		}
		again, err := decode("y", bytes.NewReader(out.Bytes()), int64(out.Len()))
		if err != nil {
			t.Fatal(err)
		}
		if len(again.Tensors) != len(got.Tensors) {
			t.Fatalf("%d tensors, want %d", len(again.Tensors), len(got.Tensors))
		}
		for i, w := range got.Tensors {
			g := again.Tensors[i]
			if g.Name != w.Name || fmt.Sprint(g.Dims, g.Ints) != fmt.Sprint(w.Dims, w.Ints) || !sameBits(g.Data, w.Data) {
				t.Errorf("tensor %q changed", w.Name)
			}
		}
	})
}

// Every type of element is read; the values are those of PyTorch's types.
func TestTypesOfElements(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for dtype, c := range map[string]struct {
		bytes []byte
		want  []float64
	}{
		"F64":     {[]byte{0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 0, 0, 0, 0, 0, 0, 0xe0, 0xbf}, []float64{1.5, -0.5}},
		"F32":     {[]byte{0, 0, 0xc0, 0x3f}, []float64{1.5}},
		"F16":     {[]byte{0, 0x3e, 1, 0}, []float64{1.5, 0x1p-24}},
		"BF16":    {[]byte{0xc0, 0x3f}, []float64{1.5}},
		"F8_E5M2": {[]byte{0x3e, 0x7b, 0x7c, 0x81, 0x7f}, []float64{1.5, 57344, inf, -0x1p-16, nan}},
		"F8_E4M3": {[]byte{0x3c, 0x7e, 0x01, 0x88, 0x7f, 0xff}, []float64{1.5, 448, 0x1p-9, -0x1p-6, nan, nan}},
		"I64":     {[]byte{1, 2, 0, 0, 0, 0, 0, 0x80}, []float64{math.MinInt64 + 513}},
		"U32":     {[]byte{1, 0, 0, 0x80}, []float64{1<<31 + 1}},
		"I32":     {[]byte{0xfe, 0xff, 0xff, 0xff}, []float64{-2}},
		"U16":     {[]byte{0xfe, 0xff}, []float64{65534}},
		"I16":     {[]byte{0xfe, 0xff}, []float64{-2}},
		"U8":      {[]byte{0xfe, 3}, []float64{254, 3}},
		"I8":      {[]byte{0xfe, 3}, []float64{-2, 3}},
		"BOOL":    {[]byte{1, 0}, []float64{1, 0}},
	} {
		header := fmt.Sprintf(`{"w":{"dtype":%q,"shape":[%d],"data_offsets":[0,%d]}}`, dtype, len(c.want), len(c.bytes))
		file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
		file = append(file, c.bytes...)
		f, err := decode("f", bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Errorf("%s: %v", dtype, err)
			continue
		}
		w := f.Lookup("w")
		for i, want := range c.want {
			var got float64
			if w.Data != nil {
				got = float64(w.Data[i])
			} else {
				got = float64(w.Ints[i])
			}
			if got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
				t.Errorf("%s: element %d is %v, want %v", dtype, i, got, want)
			}
		}
	}
}
