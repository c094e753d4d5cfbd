"""What each paper's row has to show here: one file per paper, its checks registered with the frame's decorator."""
