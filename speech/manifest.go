package speech

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
)

// Utterance is a row of a manifest.
type Utterance struct {
	File    string // the manifest
	Line    int    // of the manifest, from 1
	Audio   string // path of the sound or feature file
	Text    string // what is said, or the label
	Speaker string
	Part    task.Part // "" if the manifest has no column of parts
}

// ReadManifest reads a table (CSV or TSV with a line of column names) with an
// utterance per row. column is that of the texts or labels; "" for none. use is
// called for each row and may change or refuse it, note, if not nil, with a
// message about what was unusual in the table.
//
// A table that cannot be read or has no rows, and an unknown part, are a
// *data.InputError; so are missing files, of which it names the first dozen. The
// errors of use are returned; a cancelled ctx returns its error.
func (c *Setup) ReadManifest(ctx context.Context, path, column string, note func(string), use func(*Utterance) error) ([]Utterance, error) {
	var list []Utterance
	var missing []string
	dir := filepath.Dir(path)
	for r, err := range data.ReadRecords(path, note, c.Audio, column, c.Speaker, c.SplitColumn) {
		if err := cmp.Or(err, ctx.Err()); err != nil {
			return nil, err
		}
		u := Utterance{File: path, Line: r.Line, Audio: r.Fields[0], Text: r.Fields[1], Speaker: r.Fields[2], Part: task.Part(r.Fields[3])}
		if u.Audio == "" {
			return nil, &data.InputError{File: path, Line: r.Line, Column: c.Audio, Problem: "names no file"}
		}
		if !filepath.IsAbs(u.Audio) {
			u.Audio = filepath.Join(dir, u.Audio)
		}
		if c.SplitColumn != "" && !slices.Contains([]task.Part{task.Training, task.Validation, task.Test}, u.Part) {
			return nil, &data.InputError{File: path, Line: r.Line, Column: c.SplitColumn, Problem: fmt.Sprintf("want train, validation or test, got %q", u.Part)}
		}
		if err := use(&u); err != nil {
			return nil, err
		}
		if info, err := os.Stat(u.Audio); err != nil || info.IsDir() {
			missing = append(missing, fmt.Sprintf("%s (line %d)", r.Fields[0], r.Line))
		}
		list = append(list, u)
	}
	if len(missing) > 0 {
		return nil, &data.InputError{File: path, Problem: fmt.Sprintf("%s missing: %s", report.Agree(len(missing), "file is", "files are"), report.Listing(missing)),
			Fix: fmt.Sprintf("paths are relative to %s", dir)}
	}
	if len(list) == 0 {
		return nil, &data.InputError{File: path, Problem: "lists no utterance", Fix: "give one row per utterance, with the columns " + c.Audio + " and " + column}
	}
	return list, nil
}

// Sounds returns the files that a manifest lists, of which neither texts nor
// parts are needed; or path itself, if it is not a table (.csv, .tsv or .txt,
// perhaps gzipped). note and the errors are those of [Setup.ReadManifest].
func (c *Setup) Sounds(ctx context.Context, path string, note func(string)) ([]string, error) {
	switch filepath.Ext(strings.TrimSuffix(strings.ToLower(path), ".gz")) {
	default:
		return []string{path}, nil
	case ".csv", ".tsv", ".txt":
	}
	plain := *c
	plain.Speaker, plain.SplitColumn = "", ""
	var paths []string
	_, err := plain.ReadManifest(ctx, path, "", note, func(u *Utterance) error {
		paths = append(paths, u.Audio)
		return nil
	})
	return paths, err
}

// divide divides the utterances of a manifest. The column of parts decides, if
// there is one. Otherwise a share of the speakers, if they are known, or of the
// utterances is for validation. It is chosen by a hash of their names and the
// seed, so added rows hardly move others to another part.
func (c *Setup) divide(list []Utterance) (task.Parts[Utterance], error) {
	p := task.Parts[Utterance]{Whole: list}
	if c.SplitColumn != "" {
		for _, u := range list {
			switch u.Part {
			case task.Training:
				p.Training = append(p.Training, u)
			case task.Validation:
				p.Validation = append(p.Validation, u)
			case task.Test:
				p.Test = append(p.Test, u)
			}
		}
		return p, nil
	}
	name := func(u *Utterance) string {
		if c.Speaker != "" {
			return u.Speaker
		}
		return u.Audio + "\x00" + u.Text
	}
	draw := func(s string) uint64 {
		h := fnv.New64a()
		fmt.Fprintf(h, "%d %s", c.Seed, filepath.Base(s))
		return h.Sum64() * 0x9e3779b97f4a7c15
	}
	order := slices.Clone(list)
	slices.SortStableFunc(order, func(a, b Utterance) int {
		return cmp.Or(cmp.Compare(draw(name(&a)), draw(name(&b))), cmp.Compare(name(&a), name(&b)))
	})
	want := int(c.Holdout*float64(len(list)) + 0.5)
	n := 0
	for n < len(order) && (n < want || n > 0 && name(&order[n]) == name(&order[n-1])) {
		n++
	}
	if n == len(order) && n > 0 {
		return p, data.Errorf("holdout: a share of %v of %s leaves nothing to train on; give more rows, or another column for speaker", c.Holdout, report.Plural(len(list), "utterance"))
	}
	p.Validation, p.Training = order[:n:n], order[n:]
	inOrder := func(a, b Utterance) int { return cmp.Compare(a.Line, b.Line) }
	slices.SortStableFunc(p.Validation, inOrder)
	slices.SortStableFunc(p.Training, inOrder)
	return p, nil
}
