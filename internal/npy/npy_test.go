package npy

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

func golden(t testing.TB) (*Archive, []byte) {
	b, err := os.ReadFile("testdata/arrays.npz")
	if err != nil {
		t.Fatal(err)
	}
	a, err := OpenArchive(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// ramp is 0, 1, 2, ... in a type.
func ramp(typ string, n int) (b []byte) {
	for i := range n {
		switch typ {
		case "f2": // of whole numbers below 2048
			bits := uint16(0)
			if i > 0 {
				e := int(math.Log2(float64(i)))
				bits = uint16(e+15)<<10 | uint16(i<<(10-e))&0x3ff
			}
			b = binary.LittleEndian.AppendUint16(b, bits)
		case "f4":
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(i)))
		case "f8":
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(i)))
		case "b1":
			b = append(b, byte(min(i, 1)))
		default:
			b = append(b, binary.LittleEndian.AppendUint64(nil, uint64(i))[:ItemSize(typ)]...)
		}
	}
	return b
}

// What NumPy wrote is read in every type, byte order and order of indices, and
// written as the same bytes.
func TestNumPyFiles(t *testing.T) {
	a, raw := golden(t)
	if len(a.Names) != 45 {
		t.Errorf("%d arrays", len(a.Names))
	}
	for _, name := range a.Names {
		typ, variant, _ := strings.Cut(name, "_")
		dims := []int{2, 3, 4}
		switch name {
		case "objects", "structs", "text", "complex":
			if _, err := a.Read(name); err == nil || !strings.Contains(err.Error(), "want numbers or booleans") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		case "scalar", "negative", "halves", "signs":
			continue
		case "vector", "version2", "version3":
			typ, dims = "i8", []int{5}
		case "empty":
			typ, dims = "f4", []int{0, 3}
		}
		got, err := a.Read(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		n, _ := Len(dims, math.MaxInt64)
		if got.Type != typ || !slices.Equal(got.Dims, dims) || !bytes.Equal(got.Data, ramp(typ, int(n))) {
			t.Errorf("%s: %s%v %v", name, got.Type, got.Dims, got.Data)
		}
		for i := range got.Len() {
			if want := min(i, map[bool]int{true: 1, false: 24}[typ == "b1"]); typ[0] == 'f' && got.Float(i) != float64(want) || typ[0] != 'f' && got.Int(i) != int64(want) {
				t.Errorf("%s: element %d", name, i)
			}
		}
		if variant == "" && !strings.HasPrefix(name, "version") {
			var b bytes.Buffer
			if err := Write(&b, got); err != nil || !bytes.Equal(b.Bytes(), member(t, raw, name)) {
				t.Errorf("%s: written as %q, %v", name, b.Bytes(), err)
			}
		}
	}
	for name, want := range map[string][]float64{"negative": {-1.5, math.NaN(), math.Inf(1)}, "halves": {-1.5, math.NaN(), math.Inf(-1), 3.0 / (1 << 24), 65504}} {
		got, err := a.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range want {
			if x := got.Float(i); x != w && !(x != x && w != w) {
				t.Errorf("%s: element %d is %g, want %g", name, i, x, w)
			}
		}
	}
	if got, err := a.Read("signs"); err != nil || got.Int(0) != -1 || got.Int(1) != -32768 {
		t.Errorf("signs: %v, %v", got, err)
	}
	if got, err := a.Read("scalar"); err != nil || len(got.Dims) != 0 || math.Float32frombits(binary.LittleEndian.Uint32(got.Data)) != 7 {
		t.Errorf("scalar: %v, %v", got, err)
	}
}

// member is the bytes of an archive's file.
func member(t *testing.T, archive []byte, name string) []byte {
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := z.Open(name + ".npy")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestArchive(t *testing.T) {
	names := []string{"x", "a/b"}
	arrays := []*Array{{"f4", []int{2, 2}, ramp("f4", 4)}, {"i8", []int{}, ramp("i8", 1)}}
	var b bytes.Buffer
	if err := WriteArchive(&b, names, arrays); err != nil {
		t.Fatal(err)
	}
	a, err := OpenArchive(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil || !slices.Equal(a.Names, names) {
		t.Fatal(a, err)
	}
	for i, name := range names {
		got, err := a.Read(name)
		if err != nil || got.Type != arrays[i].Type || !slices.Equal(got.Dims, arrays[i].Dims) || !bytes.Equal(got.Data, arrays[i].Data) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := a.Read("y"); err == nil {
		t.Error("an array that is not there is read")
	}
}

// file is a .npy file of a header.
func file(dict string, data []byte) []byte {
	b := binary.LittleEndian.AppendUint16([]byte(magic+"\x01\x00"), uint16(len(dict)))
	return append(append(b, dict...), data...)
}

func dictionary(shape string) string {
	return "{'descr': '<f4', 'fortran_order': False, 'shape': (" + shape + "), }\n"
}

func TestHostileFiles(t *testing.T) {
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"no file", nil, "is not a NumPy array"},
		{"text", []byte("1,2,3\n4,5,6\n"), "is not a NumPy array"},
		{"header cut", file(dictionary("2"), nil)[:30], "is truncated"},
		{"elements missing", file(dictionary("2"), make([]byte, 7)), "an array [2] of float32 does not fit 7 bytes"},
		{"elements left", file(dictionary("2"), make([]byte, 9)), "does not fit 9 bytes"},
		{"a shape that overflows", file(dictionary("4294967296, 4294967296"), nil), "does not fit 0 bytes"},
		{"a dimension that overflows", file(dictionary("99999999999999999999"), nil), "its shape is (99999999999999999999)"},
		{"a negative dimension", file(dictionary("-1"), nil), "its header is"},
		{"more dimensions than NumPy has", file(dictionary(strings.Repeat("1,", 65)), make([]byte, 4)), "its shape is"},
		{"a program", file("__import__('os').system('x')", nil), "its header is"},
		{"a long header", append([]byte(magic+"\x02\x00"), 0xff, 0xff, 0xff, 0x7f), "a header of 2147483647 bytes"},
	} {
		if _, err := Read(bytes.NewReader(c.file), int64(len(c.file))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	var bomb bytes.Buffer
	z := zip.NewWriter(&bomb)
	f, err := z.Create("w.npy")
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	f.Write(file(dictionary("26214400"), nil))
	for range 100 {
		f.Write(zeros)
	}
	z.Close()
	a, err := OpenArchive(bytes.NewReader(bomb.Bytes()), int64(bomb.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Read("w"); err == nil || !strings.Contains(err.Error(), "out of proportion") {
		t.Errorf("a bomb: %v", err)
	}
	if _, err := OpenArchive(strings.NewReader("no archive"), 10); err == nil || !strings.Contains(err.Error(), "is not a .npz archive") {
		t.Errorf("no archive: %v", err)
	}
}

// FuzzRead: any bytes give an array that has its elements, or an error.
func FuzzRead(f *testing.F) {
	f.Add(file(dictionary("2"), make([]byte, 8)))
	f.Add(file("{'descr': '>i8', 'fortran_order': True, 'shape': (1, 2), }", make([]byte, 16)))
	f.Add(file("{'descr': [('a', '<f4')], 'fortran_order': True, 'shape': (), }", nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		n, ok := Len(a.Dims, int64(len(b)))
		if !ok || n*int64(ItemSize(a.Type)) != int64(len(a.Data)) {
			t.Errorf("%s%v of %d bytes", a.Type, a.Dims, len(a.Data))
		}
	})
}
