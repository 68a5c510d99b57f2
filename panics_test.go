package carousel_test

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/classify"
	"github.com/carousel-ml/carousel/task/forecast"
	"github.com/carousel-ml/carousel/task/generate"
	"github.com/carousel-ml/carousel/task/keywords"
	"github.com/carousel-ml/carousel/task/tag"
	"github.com/carousel-ml/carousel/task/transcribe"
	"github.com/carousel-ml/carousel/task/translate"
	"github.com/carousel-ml/carousel/tensor"
)

// brokenContext panics as an operation on wrong shapes does. All functions that
// compute ask their context for its error, so it reaches each of them.
type brokenContext struct{ context.Context }

func (brokenContext) Err() error { panic(&tensor.ShapeError{Op: "Test", Msg: "a wrong shape"}) }

// TestPanicsAreErrors calls the functions of each task's package, not those of its
// Kind, with nil data and so that they panic for a shape.
func TestPanicsAreErrors(t *testing.T) {
	train := map[string]func(context.Context) error{
		classify.Name: func(ctx context.Context) error {
			_, _, err := classify.Train(ctx, nil, classify.Defaults(), nil)
			return err
		},
		forecast.Name: func(ctx context.Context) error {
			_, _, err := forecast.Train(ctx, nil, forecast.Defaults(), nil)
			return err
		},
		generate.Name: func(ctx context.Context) error {
			_, _, err := generate.Train(ctx, nil, generate.Defaults(), nil)
			return err
		},
		keywords.Name: func(ctx context.Context) error {
			_, _, err := keywords.Train(ctx, nil, keywords.Defaults(), nil)
			return err
		},
		tag.Name: func(ctx context.Context) error {
			_, _, err := tag.Train(ctx, nil, tag.Defaults(), nil)
			return err
		},
		transcribe.Name: func(ctx context.Context) error {
			_, _, err := transcribe.Train(ctx, nil, transcribe.Defaults(), nil)
			return err
		},
		translate.Name: func(ctx context.Context) error {
			_, _, err := translate.Train(ctx, nil, translate.Defaults(), nil)
			return err
		},
	}
	inputs := map[string]string{forecast.Name: "in.csv", keywords.Name: "in.wav", transcribe.Name: "in.wav"}
	for _, k := range carousel.Tasks {
		t.Run(k.Name, func(t *testing.T) {
			var use *tensor.UseError
			if err := train[k.Name](t.Context()); !errors.As(err, &use) {
				t.Errorf("Train with nil data: %v", err)
			}
			home := filepath.Join("testdata", "format1", cmp.Or(k.Was, k.Name))
			dir, err := model.Open(filepath.Join(home, "model"))
			if err != nil {
				t.Fatal(err)
			}
			m, err := k.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			// call calls a method with zeros after the arguments given.
			call := func(ctx context.Context, name string, arguments ...any) error {
				method := reflect.ValueOf(m.Model).MethodByName(name)
				list := []reflect.Value{reflect.ValueOf(ctx)}
				for i := 1; i < method.Type().NumIn(); i++ {
					v := reflect.Zero(method.Type().In(i))
					if i <= len(arguments) && arguments[i-1] != nil {
						v = reflect.ValueOf(arguments[i-1])
					}
					list = append(list, v)
				}
				results := method.Call(list)
				err, _ := results[len(results)-1].Interface().(error)
				return err
			}
			for name, arguments := range map[string][]any{"Evaluate": {nil, task.All}, "Probe": {nil, 2}} {
				use = nil
				if err := call(t.Context(), name, arguments...); !errors.As(err, &use) {
					t.Errorf("%s with nil data: %v", name, err)
				}
			}
			var shape *tensor.ShapeError
			in := task.Input{File: filepath.Join(home, cmp.Or(inputs[k.Name], "in.txt"))}
			if err := call(brokenContext{t.Context()}, "Predict", in); !errors.As(err, &shape) {
				t.Errorf("Predict that panics for a shape: %v", err)
			}
		})
	}
}
