package carousel

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task/classify"
	"github.com/carousel-ml/carousel/task/forecast"
	"github.com/carousel-ml/carousel/task/generate"
	"github.com/carousel-ml/carousel/task/tag"
	"github.com/carousel-ml/carousel/task/translate"
	"github.com/carousel-ml/carousel/tensor"
)

// Predictor is a trained model of any task. A type switch gives the task's own
// methods: *Forecaster, *Classifier, *LanguageModel, *Tagger, *Translator,
// *Transcriber, *SoundClassifier.
type Predictor interface {
	// Task names the kind of model, such as "forecast".
	Task() string
	// PredictFile predicts from a file of the kind the model was trained on. What
	// is wrong with the file is a *data.InputError; a cancelled ctx ends it with its
	// error.
	PredictFile(ctx context.Context, path string) (Prediction, error)
}

// Prediction is what a model says of a file.
type Prediction interface {
	// WriteCSV writes a table with a header line.
	WriteCSV(w io.Writer) error
}

// Forecaster is a forecasting model as a Predictor.
type Forecaster struct{ *forecast.Model }

// Task is "forecast".
func (f *Forecaster) Task() string { return forecast.Task }

// PredictFile forecasts what follows the last row of each series in a table;
// the Prediction is a *forecast.Forecast.
func (f *Forecaster) PredictFile(ctx context.Context, path string) (Prediction, error) {
	cfg := f.Config()
	o, err := cfg.ReadOptions()
	if err != nil {
		return nil, err
	}
	panel, err := data.ReadPanel(path, o)
	if err != nil {
		return nil, err
	}
	return f.Predict(ctx, panel, nil)
}

// Classifier is a classifier of texts as a Predictor.
type Classifier struct{ *classify.Model }

// Task is "classify".
func (c *Classifier) Task() string { return classify.Task }

// PredictFile classifies the texts of a file, which needs no labels; the
// Prediction is a *classify.Predictions.
func (c *Classifier) PredictFile(ctx context.Context, path string) (Prediction, error) {
	p, err := c.Model.PredictFile(ctx, path, nil)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// LanguageModel is a language model as a Predictor.
type LanguageModel struct{ *generate.Model }

// Task is "generate".
func (l *LanguageModel) Task() string { return generate.Task }

// PredictFile goes on from each line of a file; the Prediction is a
// *generate.Continuations.
func (l *LanguageModel) PredictFile(ctx context.Context, path string) (Prediction, error) {
	c, err := l.Model.PredictFile(ctx, path, nil)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Tagger is a tagger of tokens as a Predictor.
type Tagger struct{ *tag.Model }

// Task is "tag".
func (t *Tagger) Task() string { return tag.Task }

// PredictFile tags a file of plain texts, one a line, or of tokens, one a line;
// the Prediction is a *tag.Predictions.
func (t *Tagger) PredictFile(ctx context.Context, path string) (Prediction, error) {
	p, err := t.Model.PredictFile(ctx, path, "", nil)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Translator is a translation model as a Predictor.
type Translator struct{ *translate.Model }

// Task is "translate".
func (t *Translator) Task() string { return translate.Task }

// PredictFile translates a file line by line; the Prediction is a
// *translate.Translations.
func (t *Translator) PredictFile(ctx context.Context, path string) (Prediction, error) {
	found, err := t.TranslateFile(ctx, path, nil)
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Open reads a model directory of any task. What is wrong with the directory is
// a *model.FileError. The model lives on the device named, or else on the CPU.
func Open(path string, on ...*tensor.Device) (Predictor, error) {
	dir, err := model.Open(path)
	if err != nil {
		return nil, err
	}
	switch dir.Task {
	case forecast.Task:
		m, err := forecast.OpenDir(dir, on...)
		if err != nil {
			return nil, err
		}
		return &Forecaster{m}, nil
	case classify.Task:
		m, err := classify.OpenDir(dir, on...)
		if err != nil {
			return nil, err
		}
		return &Classifier{m}, nil
	case generate.Task:
		m, err := generate.OpenDir(dir, on...)
		if err != nil {
			return nil, err
		}
		return &LanguageModel{m}, nil
	case tag.Task:
		m, err := tag.OpenDir(dir, on...)
		if err != nil {
			return nil, err
		}
		return &Tagger{m}, nil
	case translate.Task:
		m, err := translate.OpenDir(dir, on...)
		if err != nil {
			return nil, err
		}
		return &Translator{m}, nil
	case speech.Task:
		m, err := speech.OpenDir(dir, on...)
		if err != nil {
			return nil, err
		}
		return &Transcriber{m}, nil
	case speech.ClassifyTask:
		m, err := speech.OpenClassifierDir(dir, on...)
		if err != nil {
			return nil, err
		}
		return &SoundClassifier{m}, nil
	}
	return nil, &model.FileError{
		File:    path,
		Problem: fmt.Sprintf("a model for task %q, which this version does not know", dir.Task),
		Fix:     "use a newer carousel",
	}
}

// version is set by the linker in release builds.
var version string

// Version is this build's version: that of the release, or of the module as Go
// recorded it, or "devel".
var Version = sync.OnceValue(func() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Path == "github.com/carousel-ml/carousel" && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
})
