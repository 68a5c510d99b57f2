// Package keywords trains recurrent networks to classify short sounds, such as
// keywords and commands, with one label per sound.
//
// [Read] reads a manifest of labelled sounds, and [Train] trains a [Model] on
// them with the settings of a [Config]. A Model classifies sounds
// ([Model.Classify]) and files ([Model.Predict]); [Model.Evaluate] scores it;
// [Model.Save] writes it to a directory that [Open] reads.
//
// Functions that compute return a panic with a [*tensor.ShapeError] or a
// [*tensor.UseError] as their error: operands that do not fit, or nil data.
package keywords

import (
	"context"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task"
)

// Name is the name of the task, as in the config.json of a model directory; was
// is its name in older versions.
const (
	Name = "keywords"
	was  = "classify-audio"
)

// Task is the task of classifying sounds.
var Task = task.New(task.About{
	Name: Name, Was: was, Noun: "a classifier of keywords", Title: "Classification of keywords",
	Short: "Train a classifier of short sounds, such as keywords or commands",
	Long: `Trains a classifier on labelled sounds: a table with a column of sound files (WAV
or FLAC) and one of labels. Instead of sounds the files may be features (.npy,
Sphinx .mfc). All files are read before training starts, and those that are
missing or damaged are reported together.`,
	Example: `  carousel train keywords --data commands.csv --out run
  carousel train keywords --data commands.csv --audio file --label word --speaker who --out run`,
	Scores: "a manifest in the format that the model was trained on",
	Takes:  "a manifest or a sound file",
	Form:   task.SoundForm,
}, Defaults, Read, Train, OpenDir, (*Model).Evaluate, (*Model).Predict)

// Files are the files of a training.
type Files = speech.Files

// Data is labelled sounds by part. The label of an utterance is its Text.
type Data struct{ speech.Data }

// NewData divides labelled sounds in memory as Read divides those of a manifest, with the
// errors of [speech.NewData].
func NewData(list []speech.Utterance, cfg Config) (*Data, error) {
	d, err := speech.NewData(list, &cfg.Setup)
	if err != nil {
		return nil, err
	}
	return &Data{*d}, nil
}

// Read reads a manifest, and those of the validation and the test part if they are
// given. Without a manifest for validation and a column of parts, the share Config.Holdout of its speakers
// or sounds is the validation part. A manifest that cannot be read, a missing
// label and missing files are a *data.InputError; a cancelled ctx returns its
// error.
func Read(ctx context.Context, f *Files, cfg Config) (*Data, error) {
	d, err := speech.Read(ctx, f, &cfg.Setup, cfg.Label, func(u *speech.Utterance) error {
		if u.Text = strings.TrimSpace(u.Text); u.Text == "" {
			return &data.InputError{File: u.File, Line: u.Line, Column: cfg.Label, Problem: "the label is missing", Fix: "every row needs one"}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &Data{*d}, nil
}
