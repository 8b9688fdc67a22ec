"""RPPI and PPW written again as plainly as can be: lists and loops, nothing of the product."""

import numpy as np


class PlainWeigher:
    """Weights by rank overlap with the mean of all that was remembered; nothing is forgotten in so few steps."""

    def __init__(self, classes, k, min_count, labeled_conf, reliable_conf, box_score):
        self.k, self.min_count = k, min_count
        self.labeled_conf, self.reliable_conf, self.box_score = labeled_conf, reliable_conf, box_score
        self.memory = [[] for _ in range(classes)]
        self.staged = []
        self.reliable = 0

    def top(self, vector):
        order = sorted(range(len(vector)), key=lambda channel: (-vector[channel], channel))[: self.k]
        return {channel for channel in order if vector[channel] > 0}

    def weights(self, embedding, labels):
        """(H, W) weights of one image: embedding (D, h, w), labels (H, W) with 255."""
        height, width = labels.shape
        h, w = embedding.shape[1:]
        marks = [self.top(np.mean(rows, axis=0)) if rows else set() for rows in self.memory]
        cells = [[self.top(embedding[:, y, x]) for x in range(w)] for y in range(h)]
        weights = np.ones((height, width))
        for y in range(height):
            for x in range(width):
                label = labels[y, x]
                if label != 255 and len(self.memory[label]) >= self.min_count:
                    cell = cells[int((y + 0.5) * h / height)][int((x + 0.5) * w / width)]
                    weights[y, x] = len(cell & marks[label]) / self.k
        return weights

    def remember_labeled(self, embedding, probability, target):
        """Labeled pixels at the embedding's cells that are predicted rightly and surely."""
        right = (probability.argmax(0) == target) & (probability.max(0) > self.labeled_conf)
        self._remember(embedding, np.where(right, target, 255))

    def remember_reliable(self, embedding, labels, confidence, boxes):
        """Pseudo-labels that a believed box of their class covers, and that are sure."""
        reliable = np.zeros(labels.shape, dtype=bool)
        for x0, y0, x1, y1, kind, score in boxes:
            for y in range(labels.shape[0]):
                for x in range(labels.shape[1]):
                    inside = x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1
                    if score >= self.box_score and inside and labels[y, x] == kind:
                        reliable[y, x] |= confidence[y, x] >= self.reliable_conf
        self._remember(embedding, np.where(reliable, labels, 255))
        self.reliable += reliable.sum()

    def _remember(self, embedding, labels):
        _, h, w = embedding.shape
        height, width = labels.shape
        for y in range(h):
            for x in range(w):
                label = labels[int((y + 0.5) * height / h), int((x + 0.5) * width / w)]
                if label != 255:
                    self.staged.append((label, embedding[:, y, x].copy()))

    def end_step(self):
        for label, vector in self.staged:
            self.memory[label].append(vector)
        self.staged = []
