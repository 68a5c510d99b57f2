package data

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A text that stays in its file is the text that is in memory, whole and in parts, however
// it is written.
func TestDocumentsThatStay(t *testing.T) {
	text := strings.Repeat("größer als eine Zeile\n", 5000) + "ende"
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write([]byte(text))
	z.Close()
	for name, content := range map[string]string{
		"plain": text, "zipped.gz": zipped.String(), "latin": strings.NewReplacer("ö", "\xf6", "ß", "\xdf").Replace(text), "mark": "\xef\xbb\xbf" + text,
		"crlf": strings.ReplaceAll(text, "\n", "\r\n"), "cr": strings.ReplaceAll(text, "\n", "\r"),
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
		one := func(room int64) Document {
			t.Helper()
			list, err := all(ReadDocuments(path, "", room, nil))
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			return list[0]
		}
		want, d := one(1<<30), one(100)
		if want.Stays() || !d.Stays() || d.Text != "" || d.Size() != want.Size() || d.File != path {
			t.Fatalf("%s: %d bytes, in memory %d", name, d.Size(), want.Size())
		}
		n := d.Size()
		for _, part := range [][2]int64{{0, n}, {0, 5}, {70000, 90001}, {n - 4, n}, {n, n}} {
			piece := d.Slice(part[0], part[1])
			got, err := contents(piece)
			if err != nil || got != want.Text[part[0]:part[1]] {
				t.Errorf("%s: bytes %v: %d bytes, %v", name, part, len(got), err)
			}
			if inner := piece.Slice(piece.Size()/2, piece.Size()); !piece.Begins(piece.Size()/2, inner) || !d.Begins(part[0]+piece.Size()/2, inner) || inner.Size() > 0 && d.Begins(part[0]+1+piece.Size()/2, inner) {
				t.Errorf("%s: bytes %v: a part is not found where it is", name, part)
			}
			if again := one(100).Slice(part[0], part[1]); again.Stamp() != piece.Stamp() || part[0] > 0 && piece.Stamp() == d.Stamp() {
				t.Errorf("%s: stamps %q, %q", name, again.Stamp(), piece.Stamp())
			}
		}
		later := time.Now().Add(time.Hour)
		if err := os.Chtimes(path, later, later); err != nil {
			t.Fatal(err)
		}
		var bad *InputError
		if _, err := contents(d); !errors.As(err, &bad) || bad.File != path {
			t.Errorf("%s: changed: %v", name, err)
		}
	}
}

func contents(d Document) (string, error) {
	r, err := d.Open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	return string(text), err
}

// Files are held in memory as long as there is room for them together; what cannot be read
// is an error at once, also beyond that room.
func TestDocumentsShareRoom(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"a": strings.Repeat("a", 100), "b": strings.Repeat("b", 200), "c": strings.Repeat("c", 50), "d": "ä\n" + strings.Repeat("d", 80) + "\nк\xff\xfe\xfd\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	var notes []string
	list, err := all(ReadDocuments(dir, "", 160, func(s string) { notes = append(notes, s) }))
	if err != nil || len(list) != 3 || list[0].Stays() || !list[1].Stays() || list[2].Stays() {
		t.Errorf("%+v, %v", list, err)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "line 3: is neither UTF-8") {
		t.Errorf("notes %q", notes)
	}
}
