// Package keywords trains recurrent networks to classify short sounds, such as
// keywords and commands: one label a sound.
//
// [Read] reads a manifest of labelled sounds, [Train] makes a [Model] of them as a
// [Config] says, and a Model classifies ([Model.Classify], [Model.Predict]), is
// scored ([Model.Evaluate]) and lives in a directory ([Model.Save], [Open]).
package keywords

import (
	"context"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task"
)

// Name is the name of the task in the config.json of a model directory; was is its
// earlier name.
const (
	Name = "keywords"
	was  = "classify-audio"
)

// Task is the classification of keywords as a value.
var Task = task.New(task.About{
	Name: Name, Was: was, Noun: "a classifier of keywords", Title: "Classification of keywords",
	Short: "Train a classifier of short sounds, such as keywords or commands",
	Long: `Trains a classifier on labelled sounds: a table with a column of sound files (WAV
or FLAC) and one of labels. Files of features (.npy, Sphinx .mfc) may stand in
place of sound. All files are read before training starts, and those that are
missing or damaged are named together.`,
	Example: `  carousel train keywords --data commands.csv --out run
  carousel train keywords --data commands.csv --audio file --label word --speaker who --out run`,
	Scores: "a manifest like that the model was trained on",
	Takes:  "a manifest or a sound file",
}, Defaults, Read, Train, OpenDir, (*Model).Evaluate, (*Model).Predict)

// Files are the files of a training.
type Files = speech.Files

// Data are labelled sounds by part; the label is an utterance's Text.
type Data = speech.Data

// Read reads a manifest, and one for the test where it is given. Where the rows of
// the manifest name no parts, Config.Holdout of its speakers or sounds validate.
// What is wrong with a manifest is a *data.InputError.
func Read(ctx context.Context, f *Files, cfg Config) (*Data, error) {
	return speech.Read(ctx, f, &cfg.Setup, cfg.Label, func(u *speech.Utterance) error {
		if u.Text = strings.TrimSpace(u.Text); u.Text == "" {
			return &data.InputError{File: u.File, Line: u.Line, Column: cfg.Label, Problem: "the label is missing", Fix: "every row needs one"}
		}
		return nil
	})
}
