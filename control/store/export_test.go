package store

import (
	"errors"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Break does to the member what a commit does that the disk refuses: it ends with the locks of
// the database held.
func (e *Embedded) Break(why string) {
	done := make(chan struct{})

	go func() {
		defer close(done)

		e.etcd.Server.Backend().BatchTx().LockOutsideApply()
		e.guard.OnWrite(&zapcore.CheckedEntry{Entry: zapcore.Entry{Message: "failed to commit tx"}},
			[]zapcore.Field{zap.Error(errors.New(why))})
	}()

	<-done
}
