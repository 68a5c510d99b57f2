package trials

import (
	"context"

	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tune"
)

// A Task is a task with its data and the settings that are not tuned. Its runs are trainings; units are epochs.
type Task struct {
	Kind *task.Kind
}

// NewTask reads the data of a task, once for all trials, and settles the number of epochs. objectives are names: "" or none is the
// metric by which the training chooses its weights; another one of its validation's; latency, the time of
// a prediction in ms; size, the bytes of the weights' file. Only the first may be a metric.
func NewTask(ctx context.Context, k *task.Kind, files any, base task.Config, objectives []string) (*Task, error) {
	panic("soon")
}

// Space returns the space that is shipped for a task: the few settings that matter in practice, with the values of cfg as
// defaults.
func Space(k *task.Kind, cfg task.Config) *tune.Space { panic("soon") }

// ReadSpace reads a space file for the task: parameters must be settings, and values such that the settings take them. base are the
// defaults of parameters that the file gives none.
func ReadSpace(path string, k *task.Kind, base task.Config) (*tune.Space, error) { panic("soon") }

// Config returns the settings of a trial.
func (t *Task) Config(v tune.Values) (task.Config, error) { panic("soon") }

// Recipe returns the settings of a trial as a recipe, which --config reads: all that differ from the task's defaults.
func (t *Task) Recipe(v tune.Values) (string, error) { panic("soon") }
