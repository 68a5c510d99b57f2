package carousel

import (
	"fmt"
	"runtime/debug"
	"sync"

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

// Tasks are all tasks, in the order of the command's help.
var Tasks = []*task.Kind{
	forecast.Task,
	classify.Task,
	generate.Task,
	tag.Task,
	translate.Task,
	transcribe.Task,
	keywords.Task,
}

// Open reads a model directory of any task. What is wrong with the directory is
// a *model.FileError. The model lives on the device named, or else on the CPU.
//
// The result predicts, and is evaluated, as any model; a type switch on its Model
// gives the task's own methods: *classify.Model, *forecast.Model and so on.
func Open(path string, on ...*tensor.Device) (*task.Trained, error) {
	dir, err := model.Open(path)
	if err != nil {
		return nil, err
	}
	for _, k := range Tasks {
		if k.Is(dir) {
			return k.Open(dir, on...)
		}
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
