// Package classify trains recurrent networks to classify texts, such as by
// sentiment or topic, with one label per text or several.
//
// [Read] reads labelled texts, and [Train] trains a [Model] on them with the
// settings of a [Config]. A Model classifies texts ([Model.Classify]) and files
// ([Model.Predict]), and can compute what each word contributed
// ([PredictOptions]); [Model.Evaluate] scores it beside baselines; [Model.Save]
// writes it to a directory that [Open] reads.
//
// Vocabulary, linear method and network are learnt from the training texts alone;
// the validation texts choose the epoch and the share of the linear method.
//
// Functions that compute return a panic with a [*tensor.ShapeError] or a
// [*tensor.UseError] as their error: operands that do not fit, or nil data.
package classify

import (
	"context"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// Name is the name of the task, as in the config.json of a model directory.
const Name = "classify"

// Task is the task of classifying texts.
var Task = task.New(task.About{
	Name: Name, Noun: "a classifier of texts", Title: "Classification of texts",
	Short: "Train a classifier of texts, such as of sentiment or topic",
	Long: `Trains a classifier on labelled texts: a table (CSV or TSV) with a column of
texts and one of labels, JSON lines, or lines that begin with their label. It
scores the classifier and baselines on the test texts, or on the validation texts
if there are no test texts, and writes model, checkpoints and report into --out.`,
	Example: `  carousel train classify --data reviews.csv --text review --label stars --out run
  carousel train classify --data train.txt --valid dev.txt --test test.txt --format label-first --out run
  carousel train classify --data posts.jsonl --separator ',' --out run
  carousel train classify --data reviews.csv --fold 1/5 --out fold1`,
	Scores: "a file of labelled texts in the format that the model was trained on",
	Takes:  "a file of texts, or - for lines of standard input; or --input, a text",
	Texts:  true,
}, Defaults, Read, Train, OpenDir, (*Model).Evaluate, (*Model).Predict)

// Data is labelled texts by part.
type Data struct {
	task.Parts[data.Example]
	task.Source
	file string    // of the training texts, for errors
	read task.Memo // of trainings: the texts as tokens, the linear method
}

// Read reads labelled texts. Without a validation file, the share Config.Holdout
// of the training texts is drawn for validation by the seed; with Config.Fold a
// part of them is the test part. A file that cannot be read, an invalid Fold, and
// a Fold together with a test file are a *data.InputError; a cancelled ctx
// returns its error.
func Read(ctx context.Context, f *task.Files, cfg Config) (*Data, error) {
	if f.Test != "" && cfg.Fold != "" {
		return nil, data.Errorf("fold takes the test part from the data; give either fold or a test file")
	}
	d := &Data{Source: task.Source{Name: data.BaseName(f.Data)}, file: f.Data}
	var err error
	d.Parts, err = task.ReadParts(f.Data, f.Valid, f.Test, cfg.holding(), func(path string) ([]data.Example, error) {
		return task.Collect(ctx, data.ReadExamples(path, cfg.examples(d.Note)))
	})
	return d, err
}

// NewData divides texts in memory as Read divides those of one file. An invalid
// Fold is a *data.InputError.
func NewData(list []data.Example, cfg Config) (*Data, error) {
	p, err := task.Deal(list, cfg.holding())
	return &Data{Parts: p}, err
}

func (c *Config) holding() task.Holdout {
	return task.Holdout{Share: c.Holdout, Fold: c.Fold, Seed: c.Seed}
}
