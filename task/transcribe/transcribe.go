// Package transcribe trains recurrent networks to recognise speech: from sound
// files to words by log-mel features, an LSTM and connectionist temporal
// classification (Graves et al. 2006).
//
// [Read] reads a manifest of utterances, and [Train] trains a [Model] on them
// with the settings of a [Config]. A Model transcribes sounds
// ([Model.Transcribe]), files ([Model.Predict]) and streams while they arrive
// ([Model.NewStream]); [Model.Evaluate] scores it; [Model.Save] writes it to a
// directory that [Open] reads. A [Lexicon] and an n-gram [LM] restrict and weight
// the words of its texts.
//
// Functions that compute return a panic with a [*tensor.ShapeError] or a
// [*tensor.UseError] as their error: operands that do not fit, or nil data.
package transcribe

import (
	"context"

	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task"
)

// Name is the name of the task, as in the config.json of a model directory.
const Name = "transcribe"

// Task is the task of recognising speech.
var Task = task.New(task.About{
	Name: Name, Noun: "a recogniser of speech", Title: "Recognition of speech",
	Short: "Train a recogniser of speech",
	Long: `Trains a recogniser of speech, an LSTM with connectionist temporal
classification, on the utterances of a manifest: a table with a column of sound
files (WAV or FLAC) and one of their texts. Instead of sounds the files may be
features (.npy, Sphinx .mfc). All files are read before training starts, and those
that are missing or damaged are reported together.

With --bidirectional=false the model can transcribe a stream while it arrives.`,
	Example: `  carousel train transcribe --data manifest.csv --out run
  carousel train transcribe --data manifest.csv --speaker who --bidirectional=false --out run
  carousel train transcribe --data manifest.csv --lm words.arpa.gz --lexicon words.txt --out run`,
	Scores: "a manifest in the format that the model was trained on",
	Takes:  "a manifest or a sound file (carousel transcribe reads sound from standard input)",
	Form:   task.SoundForm,
}, Defaults, Read, Train, OpenDir, (*Model).Evaluate, (*Model).Predict)

// Files are the files of a training.
type Files = speech.Files

// Data is utterances by part.
type Data struct{ speech.Data }

// NewData divides utterances in memory as Read divides those of a manifest, with the
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
// or utterances is the validation part. A manifest that cannot be read and
// missing files are a *data.InputError; a cancelled ctx returns its error.
func Read(ctx context.Context, f *Files, cfg Config) (*Data, error) {
	d, err := speech.Read(ctx, f, &cfg.Setup, cfg.Text, cfg.cleanText)
	if err != nil {
		return nil, err
	}
	return &Data{*d}, nil
}

func (c *Config) cleanText(u *speech.Utterance) error {
	u.Text = c.clean(u.Text)
	return nil
}
