package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

type settings struct {
	Hidden int      `json:"hidden"`
	Names  []string `json:"names"`
}

// saved writes a small model directory.
func saved(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a", "model")
	ts := []Tensor{{Name: "head.weight", Dims: []int{2, 2}, Data: []float32{1, 2, 3, 4}}}
	if err := Save(dir, "forecast", settings{64, []string{"<a> & b"}}, Tensors(WeightsFile, ts, nil)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestDirRoundTrip(t *testing.T) {
	dir := saved(t)
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var s settings
	if err := d.Decode(&s); err != nil {
		t.Fatal(err)
	}
	if want := (settings{64, []string{"<a> & b"}}); !reflect.DeepEqual(s, want) {
		t.Errorf("configuration %v, want %v", s, want)
	}
	if d.Task != "forecast" || d.Version == "" || d.Path != dir {
		t.Errorf("got task %q, version %q, path %q", d.Task, d.Version, d.Path)
	}
	if got := d.Weights.Lookup("head.weight").Data; !reflect.DeepEqual(got, []float32{1, 2, 3, 4}) {
		t.Errorf("weights %v", got)
	}
	var other struct {
		Hidden int `json:"hidden"`
	}
	checkFileError(t, d.Decode(&other), filepath.Join(dir, ConfigFile), `unknown field "names"`)
}

func TestDirRefuses(t *testing.T) {
	edit := func(old, new string) func([]byte) []byte {
		return func(b []byte) []byte {
			if !bytes.Contains(b, []byte(old)) {
				panic("nothing to edit: " + old)
			}
			return bytes.Replace(b, []byte(old), []byte(new), 1)
		}
	}
	for _, c := range []struct {
		name, file string
		change     func([]byte) []byte // nil: remove the file
		where      string              // file that the error names, "" the directory
		want       string
	}{
		{"other format", ConfigFile, edit(`"format": 2`, `"format": 7`), ConfigFile, "expected model format 1 to 2, got format 7, written by carousel"},
		{"format missing", ConfigFile, edit(`"format"`, `"fromat"`), ConfigFile, "not written by carousel"},
		{"other JSON", ConfigFile, func([]byte) []byte { return []byte(`{"a": 1}`) }, ConfigFile, "not written by carousel"},
		{"broken JSON", ConfigFile, edit(`"config": {`, `"config": {{`), ConfigFile, "line 15: invalid character"},
		{"cut JSON", ConfigFile, func(b []byte) []byte { return b[:len(b)-4] }, ConfigFile, "unexpected end"},
		{"no config", ConfigFile, nil, "", "it has no config.json"},
		{"no weights", WeightsFile, nil, WeightsFile, "missing: the model was saved with this file; restore the directory"},
		{"truncated weights", WeightsFile, func(b []byte) []byte { return b[:len(b)-3] }, WeightsFile, "expected 96 bytes, got 93"},
		{"empty weights", WeightsFile, func(b []byte) []byte { return nil }, WeightsFile, "expected 96 bytes, got 0"},
		{"altered weights", WeightsFile, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, WeightsFile, "altered since it was saved, or of another save: expected sha256 "},
		{"longer weights", WeightsFile, func(b []byte) []byte { return append(b, 0) }, WeightsFile, "expected 96 bytes, got 97"},
		{"a setting", ConfigFile, edit("64", "65"), ConfigFile, "altered since it was saved: expected sha256 "},
		{"format 1 by one digit", ConfigFile, edit(`"format": 2`, `"format": 1`), ConfigFile, "altered since it was saved: expected no sha256 and files in format 1"},
		{"format 1 without a checksum", ConfigFile, func([]byte) []byte { return []byte(`{"carousel": {"format": 1, "task": "forecast"}, "config": {}}`) }, ConfigFile, "expected weights_sha256"},
		{"seal removed", ConfigFile, edit("\"sha256\"", "\"sha257\""), ConfigFile, "altered since it was saved: expected sha256 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := saved(t)
			path := filepath.Join(dir, c.file)
			if c.change == nil {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			} else {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, c.change(b), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Open(dir)
			checkFileError(t, err, filepath.Join(dir, c.where), c.want)
		})
	}
}

func TestOpenWrongPath(t *testing.T) {
	dir := saved(t)
	none := filepath.Join(dir, "none")
	_, err := Open(none)
	checkFileError(t, err, none, "no such model directory")
	if !errors.Is(err, os.ErrNotExist) {
		t.Error("a missing directory does not unwrap to ErrNotExist")
	}
	file := filepath.Join(dir, ConfigFile)
	_, err = Open(file)
	checkFileError(t, err, file, "expected a model directory, got a file")
}

func TestSaveRefusesUnwritable(t *testing.T) {
	dir := saved(t)
	if err := Save(filepath.Join(dir, ConfigFile), "forecast", 1, Tensors(WeightsFile, nil, nil)); err == nil {
		t.Error("a file is taken as a directory")
	}
	if err := Save(dir, "forecast", func() {}, Tensors(WeightsFile, nil, nil)); err == nil {
		t.Error("a configuration that is not JSON is written")
	}
	if _, err := Open(dir); err != nil {
		t.Errorf("the older model is damaged: %v", err)
	}
}

// FuzzOpenDir: a directory with any config.json whose seal is right is refused with a
// FileError of one line, or its model can be saved as it is.
func FuzzOpenDir(f *testing.F) {
	dir, copied := f.TempDir(), f.TempDir()
	ts := []Tensor{{Name: "w", Dims: []int{2}, Data: []float32{1, 2}}}
	if err := Save(dir, "forecast", settings{64, nil}, Tensors(WeightsFile, ts, nil), Tensors("more/a.safetensors", ts, nil)); err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(dir, ConfigFile)
	text, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add(strings.Replace(string(text), `"more/a.safetensors"`, `"model.safetensors"`, 1))
	f.Add(strings.Replace(string(text), `"more/a.safetensors"`, `"../a"`, 1))
	f.Add(strings.Replace(string(text), `{"hidden":64,"names":null}`, `null`, 1))
	f.Fuzz(func(t *testing.T, text string) {
		var m manifest
		if json.Unmarshal([]byte(text), &m) == nil && len(m.Carousel.Seal) == len(unsealed) {
			text = strings.Replace(text, m.Carousel.Seal, sealOf([]byte(text), m.Carousel.Seal), 1)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		d, err := Open(dir)
		if err != nil {
			var fe *FileError
			if !errors.As(err, &fe) || strings.Contains(err.Error(), "\n") {
				t.Errorf("not a FileError of one line: %q", err)
			}
			return
		}
		var parts []Part
		for _, name := range d.Names() {
			parts = append(parts, d.Copy(name))
		}
		if err := Save(copied, d.Task, d.Config, parts...); err != nil {
			t.Fatalf("%s is read and cannot be saved: %v", text, err)
		}
		again, err := Open(copied)
		if err != nil || again.Task != d.Task || !reflect.DeepEqual(again.Weights.Tensors, d.Weights.Tensors) || !reflect.DeepEqual(again.content, d.content) {
			t.Errorf("%s is saved as another model: %v", text, err)
		}
	})
}
