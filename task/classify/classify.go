// Package classify trains recurrent networks to classify texts: sentiment,
// topics, kinds of questions, one label a text or several.
//
// [Read] reads labelled texts, [Train] makes a [Model] of them as a [Config]
// says, and a Model classifies ([Model.Classify], [Model.Predict]), says which
// words decided ([PredictOptions]), is scored beside simple methods
// ([Model.Evaluate]) and lives in a directory ([Model.Save], [Open]).
//
// Vocabulary, linear method and network are learnt from the training texts
// alone; validation texts choose the epoch and the share of the linear method.
package classify

import (
	"context"
	"path/filepath"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// Name is what the config.json of a model directory says of a classifier.
const Name = "classify"

// Task is the classification of texts as a value.
var Task = task.New(task.About{
	Name: Name, Noun: "a classifier of texts", Title: "Classification of texts",
	Short: "Train a classifier of texts, such as of sentiment or topic",
	Long: `Trains a classifier on labelled texts: a table (CSV or TSV) with a column of
texts and one of labels, JSON lines, or lines that begin with their label. It
scores the classifier and the simple methods on the test texts, or without such
on the validation texts, and writes model, checkpoints and report into --out.`,
	Example: `  carousel train classify --data reviews.csv --text review --label stars --out run
  carousel train classify --data train.txt --valid dev.txt --test test.txt --format label-first --out run
  carousel train classify --data posts.jsonl --separator ',' --out run
  carousel train classify --data reviews.csv --fold 1/5 --out fold1`,
	Scores: "a file of labelled texts like that the model was trained on",
	Takes:  "a file of texts, or - for lines of standard input; or --input, a text",
	Texts:  true,
}, Defaults, Read, Train, OpenDir, (*Model).Evaluate, (*Model).Predict)

// Data are labelled texts by part.
type Data struct {
	task.Parts[data.Example]
	task.Source
	file string // of the training texts, for errors
}

// Read reads labelled texts. Without a file to validate on, Config.Holdout of the
// training texts validate; with Config.Fold a part of them is the test. What is
// wrong with a file is a *data.InputError.
func Read(ctx context.Context, f *task.Files, cfg Config) (*Data, error) {
	if f.Test != "" && cfg.Fold != "" {
		return nil, data.Errorf("fold keeps a part of the data for the test, so a file for the test has no place; give one of them")
	}
	d := &Data{Source: task.Source{Name: filepath.Base(f.Data)}, file: f.Data}
	list, err := d.read(ctx, f.Data, &cfg)
	if err != nil {
		return nil, err
	}
	if f.Valid != "" {
		cfg.Holdout = 0
	}
	if d.Parts, err = cfg.deal(list); err != nil {
		return nil, err
	}
	if f.Valid != "" {
		if d.Validation, err = d.read(ctx, f.Valid, &cfg); err != nil {
			return nil, err
		}
	}
	if f.Test != "" {
		d.Test, err = d.read(ctx, f.Test, &cfg)
	}
	return d, err
}

// NewData divides texts in memory as Read does those of one file. A Fold that is
// none is a *data.InputError.
func NewData(list []data.Example, cfg Config) (*Data, error) {
	p, err := cfg.deal(list)
	return &Data{Parts: p}, err
}

func (c *Config) deal(list []data.Example) (task.Parts[data.Example], error) {
	return task.Deal(list, task.Holdout{Share: c.Holdout, Fold: c.Fold, Seed: c.Seed})
}

// read reads one file.
func (d *Data) read(ctx context.Context, path string, cfg *Config) ([]data.Example, error) {
	var list []data.Example
	for e, err := range data.ReadExamples(path, cfg.examples(false, d.Note)) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}
