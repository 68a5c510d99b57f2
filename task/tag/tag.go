// Package tag trains recurrent networks to tag the tokens of sentences: with
// spans such as names in any of the usual schemes, with parts of speech, or with
// any other label of each token.
//
// [Read] reads tagged sentences, and [Train] trains a [Model] on them with the
// settings of a [Config]. A Model tags sentences ([Model.Tag]), plain text
// ([Model.TagText]) and files ([Model.Predict]); [Model.Evaluate] scores it
// beside a baseline; [Model.Save] writes it to a directory that [Open] reads.
//
// Spans are learnt in BIOES whatever the scheme of the file is; predictions are
// written in the scheme of the file. Vocabularies and network are learnt from the
// training sentences alone; the validation sentences choose the epoch.
//
// Functions that compute return a panic with a [*tensor.ShapeError] or a
// [*tensor.UseError] as their error: operands that do not fit, or nil data.
package tag

import (
	"context"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// Name is the name of the task, as in the config.json of a model directory.
const Name = "tag"

// Task is the task of tagging tokens.
var Task = task.New(task.About{
	Name: Name, Noun: "a tagger", Title: "Tagging of tokens",
	Short: "Train a tagger of tokens, such as of names or parts of speech",
	Long: `Trains a tagger on files with a token and its tag on each line and blank lines
between sentences: CoNLL with any columns, CoNLL-U, or BMES. Tags that mark spans,
such as names, may be in any of the usual schemes (IOB1, IOB2, BIOES, BMES,
BILOU), also spelled B_PER, b-PER or PER-B and with 0 for O; other tags are labels
of single tokens, such as parts of speech. It scores the tagger on the test
sentences, or on the validation sentences if there are no
test sentences, and writes model, checkpoints and report into --out.`,
	Example: `  carousel train tag --data train.conll --valid dev.conll --test test.conll --out run
  carousel train tag --data en-train.conllu.gz --valid en-dev.conllu.gz --tag upos --out run
  carousel train tag --data names.txt --format conll --token 1 --tag 4 --out run`,
	Scores: "a file of tagged sentences in the format that the model was trained on",
	Takes:  "a file of texts or of tokens, or - for lines of standard input; or --input, a text",
	Texts:  true,
}, Defaults, Read, Train, OpenDir, (*Model).Evaluate, (*Model).Predict)

// Data is tagged sentences by part.
type Data struct {
	task.Parts[data.Sentence]
	task.Source
	file string    // of the training sentences, for errors
	read task.Memo // of trainings: the sentences as numbers
}

// Read reads tagged sentences. Without a file to validate on, the share
// Config.Holdout of the training sentences is drawn for it by the seed. A file that
// cannot be read is a *data.InputError with its name and the line; a cancelled ctx
// returns its error.
func Read(ctx context.Context, f *task.Files, cfg Config) (*Data, error) {
	d := &Data{Source: task.Source{Name: data.BaseName(f.Data)}, file: f.Data}
	var err error
	d.Parts, err = task.ReadParts(f.Data, f.Valid, f.Test, cfg.holding(), func(path string) ([]data.Sentence, error) {
		return task.Collect(ctx, data.ReadConll(path, cfg.reading(true, d.Note)))
	})
	d.respell(cfg)
	return d, err
}

// NewData divides sentences in memory as Read divides those of one file. The
// error is always nil.
func NewData(list []data.Sentence, cfg Config) (*Data, error) {
	p, err := task.Deal(list, cfg.holding())
	d := &Data{Parts: p}
	d.respell(cfg)
	return d, err
}

// respell changes tags such as B_PER and 0 to B-PER and O, unless tags are to mark no
// spans.
func (d *Data) respell(cfg Config) {
	if Scheme(cfg.Scheme) == Labels {
		return
	}
	if note := respell(&d.Training, &d.Validation, &d.Test, &d.Whole); note != "" {
		d.Note(note)
	}
}

func (c *Config) holding() task.Holdout {
	return task.Holdout{Share: c.Holdout, Seed: c.Seed}
}
