package speech

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
)

// Utterance is a row of a manifest.
type Utterance struct {
	File    string // the manifest
	Line    int
	Audio   string // path of the sound, or of its features
	Text    string // what is said
	Speaker string
	Part    string // train, validation or test; "" where the manifest does not say
}

// parts are the words of a manifest's part column.
var parts = []string{"train", "validation", "test"}

// ReadManifest reads a table (CSV or TSV with a line of column names) with an
// utterance a row, its columns named by cfg. Files that are missing are an error
// that names them all, or the first dozen.
func ReadManifest(path string, cfg *Config) ([]Utterance, error) {
	return cfg.readManifest(path, cfg.Text, cfg.clean)
}

// readManifest reads texts, of the column named, with clean.
func (c *Setup) readManifest(path, text string, clean func(string) string) ([]Utterance, error) {
	var list []Utterance
	var missing []string
	dir := filepath.Dir(path)
	for r, err := range data.ReadRecords(path, c.Audio, text, c.Speaker, c.SplitColumn) {
		if err != nil {
			return nil, err
		}
		u := Utterance{File: path, Line: r.Line, Audio: r.Fields[0], Text: clean(r.Fields[1]), Speaker: r.Fields[2], Part: r.Fields[3]}
		if u.Audio == "" {
			return nil, &data.InputError{File: path, Line: r.Line, Column: c.Audio, Problem: "names no file"}
		}
		if !filepath.IsAbs(u.Audio) {
			u.Audio = filepath.Join(dir, u.Audio)
		}
		if c.SplitColumn != "" && !slices.Contains(parts, u.Part) {
			return nil, &data.InputError{File: path, Line: r.Line, Column: c.SplitColumn, Problem: fmt.Sprintf("want train, validation or test, got %q", u.Part)}
		}
		if info, err := os.Stat(u.Audio); err != nil || info.IsDir() {
			missing = append(missing, fmt.Sprintf("%s (line %d)", r.Fields[0], r.Line))
		}
		list = append(list, u)
	}
	if len(missing) > 0 {
		return nil, &data.InputError{File: path, Problem: fmt.Sprintf("%s not there: %s", counted(len(missing), "file is", "files are"), some(missing)),
			Fix: fmt.Sprintf("paths count from %s", dir)}
	}
	if len(list) == 0 {
		return nil, &data.InputError{File: path, Problem: "lists no utterance", Fix: "give a row to each, with the columns " + c.Audio + " and " + text}
	}
	return list, nil
}

// isManifest tells by the name whether a file is a table and not a sound.
func isManifest(path string) bool {
	switch filepath.Ext(strings.TrimSuffix(strings.ToLower(path), ".gz")) {
	case ".csv", ".tsv", ".txt":
		return true
	}
	return false
}

// counted is a number with the right one of two words.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// some joins items for a message, a dozen at most.
func some(items []string) string {
	const most = 12
	if len(items) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(items[:most], ", "), len(items)-most)
	}
	return strings.Join(items, ", ")
}

// clean brings a text to the form that the network spells: single spaces and
// the letters of Config.Case.
func (c *Config) clean(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	switch c.Case {
	case "lower":
		return strings.ToLower(text)
	case "upper":
		return strings.ToUpper(text)
	}
	return text
}

// Divide gives the training and the validation utterances, as [Train] does. Where the manifest
// names parts it decides. Else a share of the speakers, where they are known, or
// of the utterances is kept for validation, chosen by a hash of their names and
// the seed, so that adding rows moves none from one part to the other.
func (c *Setup) Divide(list []Utterance) (train, valid []Utterance, err error) {
	if c.SplitColumn != "" {
		for _, u := range list {
			switch u.Part {
			case "train":
				train = append(train, u)
			case "validation":
				valid = append(valid, u)
			}
		}
		if len(train) == 0 {
			return nil, nil, &data.InputError{File: list[0].File, Column: c.SplitColumn, Problem: "names no row train"}
		}
		return train, valid, nil
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
	if n == len(order) {
		return nil, nil, data.Errorf("holdout: a share of %v of %s leaves nothing to train on; give more rows, or another column for speaker", c.Holdout, counted(len(list), "utterance", "utterances"))
	}
	valid, train = order[:n], order[n:]
	inOrder := func(a, b Utterance) int { return cmp.Compare(a.Line, b.Line) }
	slices.SortStableFunc(valid, inOrder)
	slices.SortStableFunc(train, inOrder)
	return train, valid, nil
}
