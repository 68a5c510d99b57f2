package graph

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// outside is small with "one" in a file of its own, given by entries of key and value.
func outside(entries ...string) []byte {
	g := small()
	b := appendText(appendInt(appendInt(nil, 1, 3), 2, typeFloat), 8, "one")
	for i := 0; i < len(entries); i += 2 {
		b = appendBytes(b, 13, appendText(appendText(nil, 1, entries[i]), 2, entries[i+1]))
	}
	g.initializers = [][]byte{appendInt(b, 14, 1)}
	return g.encode("g", 8, 17)
}

func TestExternalData(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	numbers := []byte("pad-")
	for _, v := range []float32{1, -2, 0.5} {
		numbers = binary.LittleEndian.AppendUint32(numbers, math.Float32bits(v))
	}
	write("m.onnx.data", numbers)
	write("below/w.bin", numbers[4:])
	write("../outside.bin", numbers)
	for _, entries := range [][]string{
		{"location", "m.onnx.data", "offset", "4", "length", "12"},
		{"location", "m.onnx.data", "offset", "4"},
		{"location", "below/w.bin", "checksum", "0123"},
	} {
		m, err := Read(write("m.onnx", outside(entries...)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Run(map[string]Value{"x": Floats([]float32{1, 1, 1}, 1, 3)})
		if err != nil {
			t.Fatal(err)
		}
		if y := got["y"].Data; y[0] != 2 || y[1] != 0 || y[2] != 1.5 {
			t.Errorf("%q: %v, want 2, 0, 1.5", entries, y)
		}
		alone := readFrom(t, written(t, m))
		if again, err := alone.Run(map[string]Value{"x": Floats([]float32{1, 1, 1}, 1, 3)}); err != nil || alone.External() != nil || differ(got, again) != "" {
			t.Errorf("%q: written as one file: %v, %v", entries, again, err)
		}
	}
	if err := os.Symlink("../outside.bin", filepath.Join(dir, "link")); err != nil {
		t.Skip(err)
	}
	for want, entries := range map[string][]string{
		`"../outside.bin", expected a file beside`:             {"location", "../outside.bin", "length", "12"},
		`"/etc/passwd", expected a file beside`:                {"location", "/etc/passwd"},
		"which cannot be read: path escapes":                   {"location", "link", "length", "12"},
		"the file none, which is not beside":                   {"location", "none"},
		"which is not a regular file":                          {"location", "below"},
		"needs 12 bytes":                                       {"location", "m.onnx.data", "length", "16"},
		"end at byte 17 of the file m.onnx.data, which has 16": {"location", "m.onnx.data", "offset", "5", "length", "12"},
		`whose offset is "-4"`:                                 {"location", "m.onnx.data", "offset", "-4"},
		`whose length is "x"`:                                  {"location", "m.onnx.data", "length", "x"},
	} {
		_, err := Read(write("m.onnx", outside(entries...)))
		checkFileError(t, err, want)
	}
}
