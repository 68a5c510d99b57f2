// Package modeltest alters model directories for tests.
package modeltest

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/model"
)

// Edit changes a file of the model in dir as its writer might have written it, so that
// sizes and checksums fit: what remains to be refused is the content. Of config.json,
// edit is given the line
//
//	"task": "TASK"
//
// and the configuration below it.
func Edit(t testing.TB, dir, file string, edit func(text string) string) {
	t.Helper()
	d, err := model.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	change := func(text string) string {
		changed := edit(text)
		if changed == text {
			t.Fatalf("%s: nothing to change in %s", d.File(file), text)
		}
		return changed
	}
	var parts []model.Part
	for _, name := range d.Names() {
		if name != file {
			parts = append(parts, d.Copy(name))
			continue
		}
		content, err := d.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		text := change(string(content))
		parts = append(parts, model.Part{Name: name, Write: func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		}})
	}
	task, config := d.Task, any(d.Config)
	if file == model.ConfigFile {
		head, body, _ := strings.Cut(change(fmt.Sprintf("\"task\": %q\n%s", task, d.Config)), "\n")
		if _, err := fmt.Sscanf(head, `"task": %q`, &task); err != nil {
			t.Fatalf("%s: %v", head, err)
		}
		config = raw(body)
	}
	if err := model.Save(dir, task, config, parts...); err != nil {
		t.Fatal(err)
	}
}

// raw is JSON as it stands.
type raw string

func (r raw) MarshalJSON() ([]byte, error) { return []byte(r), nil }

// Replace is an edit that puts with in the place of the first old.
func Replace(old, with string) func(string) string {
	return func(text string) string { return strings.Replace(text, old, with, 1) }
}
