package carousel

import (
	"context"

	"github.com/carousel-ml/carousel/speech"
)

// Transcriber is a recogniser of speech as a Predictor.
type Transcriber struct{ *speech.Model }

// Task is "transcribe".
func (t *Transcriber) Task() string { return speech.Task }

// PredictFile transcribes a sound file, or those that a manifest lists; the
// Prediction is a speech.Transcripts.
func (t *Transcriber) PredictFile(ctx context.Context, path string) (Prediction, error) {
	list, err := t.Model.PredictFile(ctx, path, nil)
	if err != nil {
		return nil, err
	}
	return list, nil
}

// SoundClassifier is a classifier of sounds as a Predictor.
type SoundClassifier struct{ *speech.Classifier }

// Task is "classify-audio".
func (c *SoundClassifier) Task() string { return speech.ClassifyTask }

// PredictFile classifies a sound file, or those that a manifest lists; the
// Prediction is a *speech.SoundClasses.
func (c *SoundClassifier) PredictFile(ctx context.Context, path string) (Prediction, error) {
	p, err := c.Classifier.PredictFile(ctx, path)
	if err != nil {
		return nil, err
	}
	return p, nil
}
