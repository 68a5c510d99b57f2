package cli

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/translate"
)

// A result in parts is one object, byte for byte that of the whole, and an error in the
// middle ends it.
func TestPartsAreOneObject(t *testing.T) {
	one, two := translate.Translation{Source: "a", Text: "A"}, translate.Translation{Source: "b", Text: "B"}
	whole := &translate.Translations{Task: "translate", List: []translate.Translation{one, two}, Notes: []string{"n"}}
	last := &translate.Translations{Task: "translate", Notes: []string{"n"}}
	parts := []task.Prediction{
		&translate.Translations{Task: "translate", List: []translate.Translation{one}},
		&translate.Translations{Task: "translate", List: []translate.Translation{two}},
		last,
	}
	broken := errors.New("broken")
	print := func(out string, end error) (stdout string, err error) {
		var b bytes.Buffer
		a := &app{kinds: carousel.Tasks, stdout: &b, stderr: io.Discard, json: true}
		err = a.emitParts(t.Context(), "predict.translate", out, func(yield func(task.Prediction, error) bool) {
			for _, p := range parts {
				if p == last && end != nil {
					yield(nil, end)
					return
				}
				if !yield(p, nil) {
					return
				}
			}
		}, func(p task.Prediction) error { return p.Write(&b) })
		if err != nil {
			a.printProblem(err)
		}
		return b.String(), err
	}
	var want bytes.Buffer
	if err := (&app{kinds: carousel.Tasks, stdout: &want, json: true}).printJSON("predict.translate", whole, nil); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "out")
	if got, err := print(file, nil); err != nil || got != want.String() {
		t.Errorf("%v: %s, want %s", err, got, want.String())
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "A\nB\n" {
		t.Errorf("the file holds %q, %v", text, err)
	}
	got, err := print(file+"2", broken)
	end := `],"error":{"error":"broken","exit":1}}` + "\n"
	if begin := want.String()[:strings.Index(want.String(), `],"notes"`)]; err != broken || got != begin+end {
		t.Errorf("%v: %s", err, got)
	}
	if entries, err := os.ReadDir(filepath.Dir(file)); err != nil || len(entries) != 1 {
		t.Errorf("an incomplete result left %v, %v", entries, err)
	}
}
