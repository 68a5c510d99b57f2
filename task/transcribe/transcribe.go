// Package transcribe trains recurrent networks to recognise speech: from sound
// files to words by log-mel features, an LSTM and connectionist temporal
// classification (Graves et al. 2006).
//
// [Read] reads a manifest of utterances, [Train] makes a [Model] of them as a
// [Config] says, and a Model transcribes ([Model.Transcribe], [Model.Predict]), also
// a stream while it arrives ([Model.NewStream]), is scored ([Model.Evaluate]) and
// lives in a directory ([Model.Save], [Open]). A [Lexicon] and an n-gram [LM]
// constrain and weight the words of its texts.
package transcribe

import (
	"context"

	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task"
)

// Name is the name of the task in the config.json of a model directory.
const Name = "transcribe"

// Task is the recognition of speech as a value.
var Task = task.New(task.About{
	Name: Name, Noun: "a recogniser of speech", Title: "Recognition of speech",
	Short: "Train a recogniser of speech",
	Long: `Trains a recogniser of speech, an LSTM with connectionist temporal
classification, on the utterances of a manifest: a table with a column of sound
files (WAV or FLAC) and one of what is said in them. Files of features (.npy,
Sphinx .mfc) may stand in place of sound. All files are read before training
starts, and those that are missing or damaged are named together.

With --bidirectional=false the model can transcribe a stream while it arrives.`,
	Example: `  carousel train transcribe --data manifest.csv --out run
  carousel train transcribe --data manifest.csv --speaker who --bidirectional=false --out run
  carousel train transcribe --data manifest.csv --lm words.arpa.gz --lexicon words.txt --out run`,
	Scores: "a manifest like that the model was trained on",
	Takes:  "a manifest or a sound file (carousel transcribe takes sound from standard input)",
}, Defaults, Read, Train, OpenDir, (*Model).Evaluate, (*Model).Predict)

// Files are the files of a training.
type Files = speech.Files

// Data are utterances by part.
type Data = speech.Data

// Read reads a manifest, and one for the test where it is given. Where the rows of
// the manifest name no parts, Config.Holdout of its speakers or utterances validate.
// What is wrong with a manifest is a *data.InputError.
func Read(ctx context.Context, f *Files, cfg Config) (*Data, error) {
	return speech.Read(ctx, f, &cfg.Setup, cfg.Text, cfg.cleanText)
}

func (c *Config) cleanText(u *speech.Utterance) error {
	u.Text = c.clean(u.Text)
	return nil
}
