package edge

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestCallContextEndsChildrenAndWaiters(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		c := &callContext{}

		child, cancel := context.WithTimeout(c, time.Hour)
		defer cancel()

		ran := make(chan struct{})
		stop := context.AfterFunc(c, func() { close(ran) })

		if c.Err() != nil || child.Err() != nil || c.Value("x") != nil {
			t.Fatal("ended early")
		}

		c.cancel()
		c.cancel()
		<-c.Done()
		<-child.Done()
		<-ran

		if !errors.Is(c.Err(), context.Canceled) || !errors.Is(child.Err(), context.Canceled) || stop() {
			t.Fatalf("%v, %v", c.Err(), child.Err())
		}

		// Whoever comes late is told at once.
		late := make(chan struct{})
		context.AfterFunc(c, func() { close(late) })
		<-late

		after, cancel := context.WithCancel(c)
		defer cancel()

		if after.Err() == nil {
			<-after.Done()
		}
	})
}

func TestCallContextIsReusedOnlyIfNobodyWaited(t *testing.T) {
	t.Parallel()

	c := &callContext{}
	c.cancel()

	if next := c.release(); next != c || next.Err() != nil {
		t.Fatal("a context that nobody held was not reused")
	}

	done := c.Done()

	next := c.release()
	if next == c {
		t.Fatal("a context that somebody waits on was reused")
	}

	<-done

	// A stopped function neither runs nor keeps the context from ending.
	stop := context.AfterFunc(next, func() { t.Error("ran") })
	if !stop() || stop() {
		t.Fatal("stop")
	}

	next.cancel()
}

func TestBodyPoolKeepsItsClasses(t *testing.T) {
	t.Parallel()

	var p bodyPool

	for _, size := range []int{0, 1, 4096, 4097, 1 << 20, 1<<20 + 1, 5 << 20} {
		b := p.get(size)
		if cap(*b) < size || len(*b) != 0 {
			t.Errorf("%d: len %d, cap %d", size, len(*b), cap(*b))
		}

		*b = append(*b, 1)
		p.put(b)
	}

	odd := make([]byte, 0, 5000)
	p.put(&odd)

	if b := p.get(5000); cap(*b) != 8192 || len(*b) != 0 {
		t.Errorf("len %d, cap %d", len(*b), cap(*b))
	}
}

func TestCallContextTellsItsEnd(t *testing.T) {
	t.Parallel()

	c := &callContext{}
	told := 0
	tell := func() { told++ }

	c.OnEnd(tell)
	c.OnEnd(nil)
	c.cancel()

	if told != 0 || !errors.Is(c.Err(), context.Canceled) {
		t.Fatalf("told %d times after it was taken back, err %v", told, c.Err())
	}

	c.OnEnd(tell)

	if told != 1 {
		t.Fatal("a call that is over already was not told")
	}

	c.OnEnd(nil)

	next := c.release()
	if next != c || next.Err() != nil {
		t.Fatal("a context that nobody held was not reused")
	}

	next.OnEnd(tell)
	next.cancel()
	next.cancel()

	if told != 2 {
		t.Fatalf("told %d times, want once more", told)
	}

	next.OnEnd(nil)

	// Who may keep the channel is told at the end of the call.
	next = next.release()
	kept := next.Done()

	if next.release() == next {
		t.Fatal("a context that somebody holds was reused")
	}

	<-kept
}
