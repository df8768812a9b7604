package ort

import "runtime"

// apart runs f on a thread of its own that ends with f. What a thread frees stays in a cache of the
// thread, where no other finds it and trim does not reach; loading and closing a model frees
// thousands of blocks, on whatever threads Go has at hand. The end of a thread gives its cache back.
func apart[T any](f func() T) T {
	done := make(chan T)

	go func() {
		runtime.LockOSThread() // and never unlocked

		v := f()

		done <- v
	}()

	return <-done
}
