// Package translate trains networks to translate sentences: an encoder reads the
// source, and a decoder that attends to its output generates the target. [BLEU]
// and [CHRF] score translations as sacreBLEU does.
//
// [Read] reads pairs of sentences, and [Train] trains a [Model] on them with the
// settings of a [Config]. A Model translates texts ([Model.Translate]) and files
// ([Model.Predict], [Model.Parts]); [Model.Evaluate] scores it; [Model.Save]
// writes it to a directory that [Open] reads.
//
// Functions that compute return a panic with a [*tensor.ShapeError] or a
// [*tensor.UseError] as their error: operands that do not fit, or nil data.
package translate

import (
	"cmp"
	"context"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// Name is the name of the task, as in the config.json of a model directory.
const Name = "translate"

// Task is the task of translating.
var Task = task.New(task.About{
	Name: Name, Noun: "a translation model", Title: "Translation",
	Short: "Train a translation model on pairs of sentences",
	Long: `Trains a network that translates, scores it by BLEU and chrF as sacreBLEU
computes them, and writes model, checkpoints and report into --out.

Line n of --data-target is the translation of line n of --data-source. Both may also be
columns of one table: --data.`,
	Needs: "--data-source FILE --data-target FILE",
	Example: `  carousel train translate --data-source train.en --data-target train.de --valid-source val.en --valid-target val.de --out run
  carousel train translate --data pairs.tsv --source en --target de --case lower --out run
  carousel train translate --config recipes/multi30k_en_de.yaml --data-source train.en.gz --data-target train.de.gz --out run`,
	Scores: "a table with both languages; or --data-source and --data-target, files with corresponding lines",
	Takes:  "a file of texts, or - for lines of standard input; or --input, a text",
	Texts:  true,
}, Defaults, Read, Train, OpenDir, (*Model).Evaluate, (*Model).Predict)

// Files are the files of a training: for each part two files with corresponding
// lines, or a table.
type Files struct {
	Source      string `json:"data_source" value:"file" group:"Files" help:"training data: the source sentences, one per line; may be gzipped, like all files"`
	Target      string `json:"data_target" value:"file" group:"Files" help:"their translations, one per line"`
	ValidSource string `json:"valid_source" value:"file" group:"Files" help:"validation data: the source sentences (empty: a share of the training pairs, see holdout)"`
	ValidTarget string `json:"valid_target" value:"file" group:"Files" help:"their translations, one per line"`
	TestSource  string `json:"test_source" value:"file" group:"Files" help:"test data, on which the trained model is scored: the source sentences (empty: it is scored on the validation pairs)"`
	TestTarget  string `json:"test_target" value:"file" group:"Files" help:"their translations, one per line"`
	Data        string `json:"data" value:"file" group:"Files" help:"training data: a table with both languages in columns, instead of data_source and data_target"`
	Valid       string `json:"valid" value:"file" group:"Files" help:"validation data: a table, instead of valid_source and valid_target"`
	Test        string `json:"test" value:"file" group:"Files" help:"test data, on which the trained model is scored: a table, instead of test_source and test_target"`
}

// Validate returns a *data.InputError if training files are missing, or if the files
// of a part do not go together.
func (f *Files) Validate() error {
	if f.training().none() {
		return data.Errorf("needs --data-source and --data-target, files with corresponding lines, or --data, a table with both")
	}
	return cmp.Or(f.training().check("data"), f.valid().check("valid"), f.test().check("test"))
}

func (f *Files) training() pairFiles { return pairFiles{f.Source, f.Target, f.Data} }
func (f *Files) valid() pairFiles    { return pairFiles{f.ValidSource, f.ValidTarget, f.Valid} }
func (f *Files) test() pairFiles     { return pairFiles{f.TestSource, f.TestTarget, f.Test} }

// pairFiles are the two files, or the table, of pairs.
type pairFiles struct{ source, target, table string }

func (f pairFiles) none() bool { return f == pairFiles{} }

// check returns an error if the files do not make pairs. name is the flag of the table.
func (f pairFiles) check(name string) error {
	switch {
	case f.table != "" && (f.source != "" || f.target != ""):
		return data.Errorf("takes --%s, a table with both languages, or --%[1]s-source and --%[1]s-target, not both", name)
	case f.table == "" && (f.source == "") != (f.target == ""):
		return data.Errorf("needs both --%s-source and --%[1]s-target, files with corresponding lines", name)
	}
	return nil
}

// Data is pairs of sentences by part.
type Data struct {
	task.Parts[data.Pair]
	task.Source
	file string    // of the training pairs, for errors
	read task.Memo // of trainings: the pairs as tokens
}

// Read reads pairs. Without validation files, the share Config.Holdout of the
// training pairs is drawn for it by the seed. Files that do not go together or
// cannot be read are a *data.InputError with the name and the line; a cancelled
// ctx returns its error.
func Read(ctx context.Context, f *Files, cfg Config) (*Data, error) {
	if err := f.Validate(); err != nil {
		return nil, err
	}
	d := &Data{file: cmp.Or(f.Data, f.Source)}
	if d.Name = data.BaseName(d.file); f.Data == "" {
		d.Name += " to " + data.BaseName(f.Target)
	}
	var err error
	d.Parts, err = task.ReadParts(f.training(), f.valid(), f.test(), cfg.holding(), func(f pairFiles) ([]data.Pair, error) {
		if f.table != "" {
			return task.Collect(ctx, data.ReadPairTable(f.table, cmp.Or(cfg.Source, "source"), cmp.Or(cfg.Target, "target"), cfg.Encoding, d.Note))
		}
		return task.Collect(ctx, data.ReadPairs(f.source, f.target, cfg.Encoding, d.Note))
	})
	return d, err
}

// NewData divides pairs in memory as Read divides those of the training files.
// The error is always nil.
func NewData(list []data.Pair, cfg Config) (*Data, error) {
	p, err := task.Deal(list, cfg.holding())
	return &Data{Parts: p}, err
}

func (c *Config) holding() task.Holdout {
	return task.Holdout{Share: c.Holdout, Seed: c.Seed}
}
