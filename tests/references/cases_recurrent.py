"""Cases with recurrent layers, and with control flow that the TorchScript-based exporter writes as If and Loop."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from case import case

STEPS, WIDTH, HIDDEN = 6, 4, 5


class Recurrent(nn.Module):
    """A recurrent layer over `[batch, steps, width]`; `taken` makes features of its results, a linear layer logits of these."""

    def __init__(self, layer, taken, features):
        super().__init__()
        self.layer = layer
        self.taken = taken
        self.head = nn.Linear(features, 5)

    def forward(self, x):
        return self.head(self.taken(*self.layer(x)))


def mean(states, _):
    return states.mean(1)


def last_state(_, state):
    """The states after the last step, of all layers and directions."""
    return state.transpose(0, 1).flatten(1)


def last_state_and_cell(_, both):
    return torch.cat([part.transpose(0, 1).flatten(1) for part in both], 1)


@case("legacy9", "legacy14", "dynamo18", shape=(STEPS, WIDTH))
def lstm():
    return Recurrent(nn.LSTM(WIDTH, HIDDEN, batch_first=True), mean, HIDDEN)


@case("legacy13", "dynamo18", shape=(STEPS, WIDTH))
def lstm_bidirectional():
    return Recurrent(nn.LSTM(WIDTH, HIDDEN, num_layers=2, bidirectional=True, batch_first=True), mean, 2 * HIDDEN)


@case("legacy17", "dynamo18", shape=(STEPS, WIDTH))
def lstm_last_states():
    return Recurrent(nn.LSTM(WIDTH, HIDDEN, num_layers=2, bidirectional=True, batch_first=True), last_state_and_cell, 8 * HIDDEN)


@case("legacy13", "dynamo18", shape=(STEPS, WIDTH))
def lstm_without_bias():
    return Recurrent(nn.LSTM(WIDTH, HIDDEN, bias=False, batch_first=True), mean, HIDDEN)


@case("legacy9", "legacy14", "dynamo18", shape=(STEPS, WIDTH))
def gru():
    return Recurrent(nn.GRU(WIDTH, HIDDEN, batch_first=True), mean, HIDDEN)


@case("legacy13", "dynamo18", shape=(STEPS, WIDTH))
def gru_bidirectional():
    return Recurrent(nn.GRU(WIDTH, HIDDEN, num_layers=2, bidirectional=True, batch_first=True), last_state, 4 * HIDDEN)


@case("legacy9", "legacy14", "dynamo18", shape=(STEPS, WIDTH))
def rnn():
    return Recurrent(nn.RNN(WIDTH, HIDDEN, batch_first=True), mean, HIDDEN)


@case("legacy13", "dynamo18", shape=(STEPS, WIDTH))
def rnn_bidirectional_relu():
    return Recurrent(nn.RNN(WIDTH, HIDDEN, num_layers=2, bidirectional=True, nonlinearity="relu", batch_first=True), last_state, 4 * HIDDEN)


class InitialState(nn.Module):
    """A state computed from the first step, from which the layer starts."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(WIDTH, HIDDEN)
        self.layer = nn.LSTM(WIDTH, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 5)

    def forward(self, x):
        state = torch.tanh(self.first(x[:, 0])).unsqueeze(0)
        states, _ = self.layer(x, (state, 2 * state))
        return self.head(states[:, -1])


@case("legacy14", "dynamo18", shape=(STEPS, WIDTH))
def lstm_initial_state():
    return InitialState()


class Packed(nn.Module):
    """Samples of different lengths, which the data themselves tell: as many steps as have a first entry below ½."""

    def __init__(self, layer, features):
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(features, 5)

    def forward(self, x):
        lengths = (x[:, :, 0] < 0.5).to(torch.int64).sum(1).clamp(min=1)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.layer(packed)[0], batch_first=True, total_length=STEPS)
        return self.head(states.sum(1))


@case("legacy14", shape=(STEPS, WIDTH))
def lstm_lengths():
    return Packed(nn.LSTM(WIDTH, HIDDEN, bidirectional=True, batch_first=True), 2 * HIDDEN)


@case("legacy14", shape=(STEPS, WIDTH))
def gru_lengths():
    return Packed(nn.GRU(WIDTH, HIDDEN, batch_first=True), HIDDEN)


class Steps(nn.Module):
    """A cell applied step by step in a scripted loop over a sequence."""

    def __init__(self):
        super().__init__()
        self.inputs = nn.Linear(WIDTH, HIDDEN)
        self.states = nn.Linear(HIDDEN, HIDDEN)
        self.head = nn.Linear(HIDDEN, 5)

    def forward(self, x):
        state = torch.zeros_like(self.inputs(x[:, 0]))
        for step in range(x.size(1)):
            state = torch.tanh(self.inputs(x[:, step]) + self.states(state))
        return self.head(state)


@case("legacy13", "legacy17", shape=(STEPS, WIDTH))
def scripted_loop():
    return torch.jit.script(Steps())


class Branches(nn.Module):
    """A branch that the shape chooses, another that a number of the module chooses, in a scripted loop."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Linear(WIDTH, HIDDEN)
        self.narrow = nn.Linear(WIDTH, HIDDEN)
        self.head = nn.Linear(HIDDEN, 5)

    def forward(self, x):
        sum = torch.zeros_like(self.wide(x[:, 0]))
        for step in range(x.size(1)):
            if step % 2 == 0:
                part = self.wide(x[:, step])
            else:
                part = torch.tanh(self.narrow(x[:, step])) * sum
            sum = sum + part
        if x.size(1) > 4:
            sum = torch.sigmoid(sum)
        return self.head(sum)


@case("legacy13", "legacy17", shape=(STEPS, WIDTH))
def scripted_branches():
    return torch.jit.script(Branches())


class Until(nn.Module):
    """A scripted loop whose end is computed, from a number that does not depend on the data."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(WIDTH, HIDDEN)
        self.again = nn.Linear(HIDDEN, HIDDEN)
        self.head = nn.Linear(HIDDEN, 5)

    def forward(self, x):
        state = self.first(x)
        count = 1
        while count < 20:
            state = torch.tanh(self.again(state)) + state
            count = count * 2 + 1
        return self.head(state)


@case("legacy13", "legacy17", shape=(WIDTH,))
def scripted_while():
    return torch.jit.script(Until())


class Sums(nn.Module):
    """A scripted loop that appends to a list."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(STEPS * WIDTH, 5)

    def forward(self, x):
        parts = [x[:, 0]]
        for step in range(1, x.size(1)):
            parts.append(torch.tanh(parts[step - 1] + x[:, step]))
        return self.head(torch.stack(parts, 1).flatten(1))


@case("legacy13", shape=(STEPS, WIDTH))
def scripted_list():
    return torch.jit.script(Sums())


class Unbound(nn.Module):
    """A scripted loop over the steps that `unbind` gives, with a list that is changed on the way."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(WIDTH * (STEPS + 1), 5)

    def forward(self, x):
        parts = []
        for part in x.unbind(1):
            parts.append(torch.sin(part) * part)
        parts.insert(0, parts[-1] + parts[1])
        return self.head(torch.cat(parts, 1))


@case("legacy13", "legacy17", shape=(STEPS, WIDTH))
def scripted_unbind():
    return torch.jit.script(Unbound())
