// Package generate trains recurrent language models on text of any kind, scores
// them, and generates text.
//
// [Read] reads documents, and [Train] trains a [Model] on them with the settings
// of a [Config]. A Model continues texts ([Model.Generate], [Model.Predict]) and
// ranks continuations ([Model.Score]); [Model.Evaluate] scores it beside a
// baseline; [Model.Save] writes it to a directory that [Open] reads.
//
// Training divides the text into streams that are read in parallel, segment by
// segment, with the state carried from one segment to the next. A document begins
// with a state of zeros.
//
// Functions that compute return a panic with a [*tensor.ShapeError] or a
// [*tensor.UseError] as their error: operands that do not fit, or nil data.
package generate

import (
	"context"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// Name is the name of the task, as in the config.json of a model directory.
const Name = "generate"

// Task is the task of modelling language.
var Task = task.New(task.About{
	Name: Name, Noun: "a language model", Title: "Language model",
	Short: "Train a language model on text or source code",
	Long: `Trains a model that predicts the next character or word of a text, and writes
model, checkpoints and report into --out. The text may be a file, or a directory
of prose or source code.

The command carousel generate then generates text with the model, and carousel
score ranks continuations of a text.`,
	Needs: "--data FILE|DIR",
	Example: `  carousel train generate --data shakespeare.txt --out run
  carousel train generate --data "$(go env GOROOT)/src/fmt" --out run
  carousel train generate --data novels --tokens bpe --hidden 512 --layers 2 --out run
  carousel train generate --data wiki.train.txt.gz --valid wiki.valid.txt.gz --tokens word --out run`,
	Scores: "a text to score the model on, a file or a directory",
	Takes:  "a file with a prompt on each line, or - for standard input; or --input, a prompt",
	Texts:  true,
}, Defaults, Read, Train, OpenDir, (*Model).Evaluate, (*Model).Predict)

// Files are the files of a training.
type Files struct {
	Data  string `json:"data" value:"file" group:"Files" help:"training data: a file of text, which may be gzipped, or a directory of them"`
	Valid string `json:"valid" value:"file" group:"Files" help:"validation data: a file or directory (empty: a part of the training data, see split)"`
	Test  string `json:"test" value:"file" group:"Files" help:"test data, on which the trained model is scored: a file or directory (empty: the test part of the training data, see split)"`
}

// Data is documents by part.
type Data struct {
	task.Parts[data.Document]
	task.Source
	file  string    // of the training text, for errors
	held  int64     // bytes of text in memory
	coded task.Memo // what trainings with the same tokens have in common
}

// Read reads files or directories of text. A part without a file is taken from the
// training text, as [NewData] divides it; with a file to validate on and no
// Config.Split the training text is not divided. Texts are held in memory up to 256 MiB
// together; what is beyond stays in its files, which must not change while the data are
// in use, and is read again whenever it is needed. A file that cannot be read, and an
// invalid Split, are a *data.InputError; a cancelled ctx returns its error.
func Read(ctx context.Context, f *Files, cfg Config) (*Data, error) {
	d := &Data{Source: task.Source{Name: data.BaseName(f.Data)}, file: f.Data}
	docs, err := d.read(ctx, f.Data, &cfg)
	if err != nil {
		return nil, err
	}
	if f.Valid != "" && cfg.Split == "" {
		cfg.Split = "1,0,0"
	}
	if d.Parts, err = cfg.divide(ctx, docs); err != nil {
		return nil, err
	}
	for _, one := range []struct {
		path string
		part task.Part
		to   *[]data.Document
	}{{f.Valid, task.Validation, &d.Validation}, {f.Test, task.Test, &d.Test}} {
		if one.path == "" {
			continue
		}
		d.Separate = append(d.Separate, one.part)
		if *one.to, err = d.read(ctx, one.path, &cfg); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// NewData divides documents in memory by the fractions of Config.Split; empty is
// 0.9,0.1,0. From 100 documents on, whole documents are drawn by the seed. Of fewer,
// each document of 1000 characters or more is cut: its beginning is for training,
// then follow validation and test; shorter ones are for training. An invalid Split
// is a *data.InputError.
func NewData(docs []data.Document, cfg Config) (*Data, error) {
	p, err := cfg.divide(context.Background(), docs)
	return &Data{Parts: p}, err
}

// read reads one file or directory.
func (d *Data) read(ctx context.Context, path string, cfg *Config) ([]data.Document, error) {
	var docs []data.Document
	for one, err := range data.ReadDocuments(path, cfg.Encoding, max(0, inMemory-d.held), d.Note) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		docs = append(docs, one)
		d.held += int64(len(one.Text))
	}
	return docs, nil
}
