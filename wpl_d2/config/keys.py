"""Every key of the config, its default, what it may be, and what it does. Presets are YAML files in configs/.

To add a key, add one entry to the table of its section, and read it as `cfg.SECTION.KEY`: the defaults, the check of
values and the reference (`python -m wpl_d2.config`) are made from these tables. A rule that involves several keys goes
into validation.py. To rename a key or a value, add it to `_RENAMED_PREFIXES` or
`RENAMED_VALUES` below.

Detectron2's keys that are not listed keep its defaults; `UNUSED` lists those of them that do nothing here.
"""

# fmt: off
# Entries have one line, or two: a formatter would give each part of a longer one a line of its own.

from __future__ import annotations

from ..utils.buckets import is_url
from .constraints import Constraint, Key, is_numbers, is_range, is_size, one_of, some_of

FLAG = Constraint("True or False", lambda value: isinstance(value, bool))
TEXT = Constraint("text")
NAMES = Constraint("names, such as ('a', 'b')")
IDS = Constraint("class ids, such as (0, 3)")
SHARE = Constraint("a number from 0 to 1", lambda value: 0 <= value <= 1)
POSITIVE = Constraint("a number above 0", lambda value: value > 0)
NOT_NEGATIVE = Constraint("a number, 0 or more", lambda value: value >= 0)
COUNT = Constraint("a whole number, 1 or more", lambda value: value >= 1)
COUNT_FROM_0 = Constraint("a whole number, 0 or more", lambda value: value >= 0)
COUNTS = Constraint("whole numbers, 1 or more", lambda value: len(value) > 0 and min(value) >= 1)
STEPS = Constraint("whole numbers, 1 or more, or none", lambda value: min(value, default=1) >= 1)
SIZE = Constraint("(height, width) in pixels, such as (321, 321)", is_size)
RANGE = Constraint("(lowest, highest), both above 0", is_range)
AREA = Constraint("(lowest, highest), above 0 and up to 1", lambda value: is_range(value) and value[1] <= 1)
CHANNELS = Constraint("numbers, those of red, green and blue", lambda value: is_numbers(value, max(1, len(value))))
RANGES = Constraint("pairs (black, white), the lower first",
    lambda value: all(is_numbers(pair, 2) and pair[0] < pair[1] for pair in value))
SCALES = Constraint("one factor above 0 or more, such as (0.5, 1.0, 1.5)",
    lambda value: len(value) > 0 and all(scale > 0 for scale in value))
BUCKET = Constraint("an address such as s3://bucket/run", lambda value: not value or is_url(value))
PHRASES = Constraint("a list of phrases for each class, such as [['road', 'street'], ['sky']]",
    lambda value: all(own and isinstance(own, list | tuple) and {type(text) for text in own} == {str} for own in value))
NORM = one_of("auto", "BN", "SyncBN", "naiveSyncBN", "FrozenBN", "GN", "")

_GENERAL = (
    Key("OUTPUT_DIR", "./output", TEXT, "Folder for checkpoints, metrics, logs and results."),
    Key("SEED", -1, Constraint("a whole number"), "Seed of every random draw; below 0: another one in each run."),
    Key("LOGGERS", ("tensorboard",), some_of("tensorboard", "mlflow", "wandb"),
        "Where scalars go beside metrics.json. MLflow and Weights & Biases are extras to install, `wpl_d2[mlflow]` and "
        "`wpl_d2[wandb]`, and take their own environment variables."),
    Key("VIS_PERIOD", 500, COUNT_FROM_0,
        "Steps between images of predictions, pseudo-labels and weights in TensorBoard; 0: none."),
)

_DATA = (
    Key("DATASETS.DESCRIPTION", "", TEXT,
        "YAML file that describes the data set (see configs/datasets/); its lists are registered as NAME_LIST."),
    Key("DATASETS.SPLIT", "", TEXT,
        "A split of the data set, such as 1_16: its lists SPLIT_labeled and SPLIT_unlabeled become TRAIN and UNLABELED "
        "and it replaces {split} in OUTPUT_DIR and MODEL.DETECTOR.CACHE. A list that is set in the same file, in one "
        "that has it as its _BASE_, or on the command line is kept; an UNLABELED that is set to () stays empty."),
    Key("DATASETS.TRAIN", (), NAMES,
        "Lists of labeled images to train on. Where DESCRIPTION is set after it and has lists named labeled, unlabeled "
        "and val, these are TRAIN, UNLABELED and TEST."),
    Key("DATASETS.UNLABELED", (), NAMES,
        "Lists of images to train on without labels. If they have masks, training never reads them."),
    Key("DATASETS.PSEUDO_LABELS", (), NAMES,
        "STPlusPlus: folders of stored pseudo-labels, relative to OUTPUT_DIR; images of UNLABELED that have none do "
        "not train. Empty: trainings before the last one make them."),
    Key("DATASETS.TEST", (), NAMES, "Lists of labeled images to evaluate on."),
    Key("DATASETS.VERIFY_FILES", True, FLAG,
        "Decode all labeled and evaluation images and masks before the first step; files that passed are remembered in "
        "$WPL_D2_CACHE (default ~/.cache/wpl_d2). False: only some of each list."),
    Key("DATASETS.MIN_BOX_AREA", 90, COUNT_FROM_0, "Connected components of a mask with fewer pixels get no box."),
    Key("DATALOADER.NUM_WORKERS", 4, COUNT_FROM_0,
        "Worker processes of each training process that load images; 0: the training process loads them itself."),
    Key("DATALOADER.CLASS_BALANCED", False, FLAG,
        "Draw each labeled image by a class that it shows, all classes being equally likely. False: a new permutation "
        "of the images in every epoch."),
    Key("DATALOADER.CACHE", "none", one_of("none", "ram", "disk"),
        "Where decoded training images and masks are kept, for all processes of a machine. ram: in shared memory, "
        "until the run ends; disk: in $WPL_D2_CACHE, for later runs too."),
    Key("DATALOADER.CACHE_GB", 10.0, POSITIVE,
        "Most GiB of decoded images: 3 bytes a pixel (4 a channel where the data set has `channels` or a "
        "`value_range`), 1 more with a mask. When it is used up, images that this run has "
        "not used are dropped; when there are none, nothing is added."),

    Key("INPUT.FORMAT", "RGB", one_of("RGB"), "Order of the color channels."),
    Key("INPUT.CHANNELS", ("red", "green", "blue"), NAMES,
        "Names of the images' channels; filled in from the data set's description (`channels`). Hue, saturation and "
        "grayscale of strong views change those called red, green and blue, and pictures show them."),
    Key("INPUT.VALUE_RANGE", (), RANGES,
        "Of each channel the values that are black and white, which become 0 and 255; filled in from the data set's "
        "description (`value_range`). Empty: images of eight bits."),
    Key("INPUT.MIN_SIZE_TEST", 0, COUNT_FROM_0,
        "Shorter side in pixels to which Detectron2's `DefaultPredictor` resizes an image; 0: images keep their size."),
    Key("INPUT.RANDOM_FLIP", "horizontal", one_of("horizontal", "none"),
        "Whether half of the training images, at random, are mirrored."),
    Key("INPUT.CROP_SIZE", (321, 321), SIZE,
        "Training crop. Smaller images are padded at the right and at the bottom."),
    Key("INPUT.SCALE_RANGE", (0.5, 2.0), RANGE,
        "Range of the random factor by which an image is resized before the crop."),
    Key("INPUT.SCALE_BALANCED", False, FLAG,
        "False: the factor is uniform in its range. True: in half of the draws it is below 1, in the others above 1 "
        "(U2PL, AEL). Applies to INPUT.PASTE too."),
    Key("INPUT.RESIZE", "antialias", one_of("antialias", "bilinear"),
        "How images are resized. antialias: smoothed before they are made smaller (PIL; UniMatch, AugSeg); bilinear: "
        "not smoothed (torch; U2PL, AEL). Masks take the nearest pixel, as PIL or torch defines it."),
    Key("INPUT.SCALE_BASE", 0, COUNT_FROM_0,
        "Length in pixels of the SCALE_SIDE side at factor 1 (AugSeg on VOC: 500); 0: the image's own."),
    Key("INPUT.SCALE_SIDE", "longer", one_of("longer", "shorter"), "Side that SCALE_BASE is the length of."),
    Key("INPUT.STRONG.KIND", "jitter", one_of("jitter", "intensity"),
        "Strong view. jitter: color jitter, grayscale and blur (UniMatch and most of its successors); intensity: 1 to "
        "MAX_OPERATIONS random operations of random strength, without JITTER and the probabilities (AugSeg)."),
    Key("INPUT.STRONG.DEVICE", "auto", one_of("auto", "cpu", "model"),
        "Where strong views are made. cpu: by the loader; model: on the model's device, a batch at a time, by the same "
        "random choices; auto: on a GPU, if the model is on one."),
    Key("INPUT.STRONG.VIEWS", 1, COUNT_FROM_0, "Strong views of each unlabeled image."),
    Key("INPUT.STRONG.LABELED", False, FLAG,
        "Make a strong view of each labeled image, too (AllSpark, PSMT). Frameworks that do not learn from it require "
        "False."),
    Key("INPUT.STRONG.MAX_OPERATIONS", 3, COUNT, "Most operations in a view of kind intensity."),
    Key("INPUT.STRONG.JITTER", (0.5, 0.5, 0.5, 0.25),
        Constraint("brightness, contrast, saturation and hue, 0 or more, hue up to 0.5",
                   lambda value: is_numbers(value, 4) and min(value) >= 0 and value[3] <= 0.5),
        "Strength of the color jitter: brightness, contrast, saturation, hue."),
    Key("INPUT.STRONG.JITTER_PROB", 0.8, SHARE, "Probability of the color jitter."),
    Key("INPUT.STRONG.GRAY_PROB", 0.2, SHARE, "Probability of grayscale."),
    Key("INPUT.STRONG.BLUR_PROB", 0.5, SHARE, "Probability of the blur."),
    Key("INPUT.STRONG.BLUR_SIGMA", (0.1, 2.0), RANGE, "Range of the blur's standard deviation in pixels."),
    Key("INPUT.PASTE.PROB", 0.0, SHARE,
        "Probability that a labeled image comes with a second one to paste from (AEL). Frameworks that paste nothing "
        "require 0."),
    Key("INPUT.PASTE.SCALE_RANGE", (0.1, 2.0), RANGE, "As INPUT.SCALE_RANGE, for the second image."),
)

_MODEL = (
    Key("MODEL.META_ARCHITECTURE", "UnifiedSegDet", TEXT,
        "UnifiedSegDet: a segmenter, perhaps with a detector; FPNDetector: a detector alone."),
    Key("MODEL.DEVICE", "cuda", TEXT, "Device of the model, such as cpu or cuda. Without a GPU, cuda becomes cpu."),
    Key("MODEL.COMPILE", False, FLAG,
        "Whether backbones and segmentation heads train by code of `torch.compile`. The first steps take minutes, the "
        "others less time; values differ by rounding. Evaluation, export, detectors and heads of methods are "
        "as ever."),
    Key("MODEL.WEIGHTS", "", TEXT,
        "First weights, of the backbone or of a whole model; in an evaluation, the checkpoint. Empty: random ones."),
    Key("MODEL.MATCH_CLASSES", False, FLAG,
        "Whether MODEL.WEIGHTS may be a checkpoint of other classes, or of these in another order. True: classes keep "
        "their weights by name, new ones begin at random; False: such a checkpoint is an error."),
    Key("MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53], CHANNELS,
        "Mean of each channel in 0..255, subtracted from images (torchvision's). For a data set of other channels "
        "three values are repeated in turn, and averaged for a single one."),
    Key("MODEL.PIXEL_STD", [58.395, 57.12, 57.375], CHANNELS,
        "Standard deviation of each channel in 0..255, by which images are divided (torchvision's). See "
        "PIXEL_MEAN."),

    Key("MODEL.BACKBONE.NAME", "build_unified_resnet_backbone", TEXT,
        "build_unified_resnet_backbone: ResNet-50 or 101; build_timm_backbone: any timm model with `features_only`, "
        "and SegFormer's mit_b0 to mit_b5; "
        "build_xception_backbone: Xception-41, 65 or 71 as in UniMatch; build_vit_backbone: a vision transformer of "
        "timm; build_maskclip_backbone: CLIP's, for VLGHead (SemiVL)."),
    Key("MODEL.BACKBONE.FREEZE_AT", 0, COUNT_FROM_0,
        "ResNet stages, from the stem on, that are not trained; timm backbones require 0."),
    Key("MODEL.BACKBONE.OUTPUT_STRIDE", 16, Constraint("8, 16 or 32", lambda value: value in (8, 16, 32)),
        "Stride of res5; an FPN requires 32."),
    Key("MODEL.RESNETS.DEPTH", 50,
        Constraint("50 or 101; other depths are timm's: set MODEL.BACKBONE.NAME build_timm_backbone and "
                   "MODEL.TIMM.NAME, such as resnet18", lambda value: value in (50, 101)),
        "Number of layers of build_unified_resnet_backbone."),
    Key("MODEL.RESNETS.NORM", "auto", NORM,
        "Normalization of the backbone. auto: BN in one process, SyncBN on several GPUs, naiveSyncBN in several CPU "
        "processes. timm backbones have BN, in one of its variants."),
    Key("MODEL.RESNETS.STRIDE_IN_1X1", False, FLAG,
        "Whether a block is strided in its first 1x1 convolution (MSRA), not in the 3x3 one (torchvision)."),
    Key("MODEL.RESNETS.STEM_TYPE", "deeplab", one_of("basic", "deeplab", "deeplab_ceil"),
        "basic: a 7x7 convolution (torchvision); deeplab: three 3x3 convolutions (UniMatch); deeplab_ceil: the same, "
        "and pooling that rounds up, which crops of n * stride pixels need (AugSeg, U2PL, AEL)."),
    Key("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"], NAMES, "Feature maps that the ResNet returns."),
    Key("MODEL.RESNETS.RES5_BLOCK_DILATIONS", (1, 2, 2),
        Constraint("three whole numbers, one for each block of res5, such as (1, 2, 2)",
                   lambda value: is_numbers(value, 3) and min(value) >= 1),
        "Dilation of each block of res5 (UniMatch: 1, 2, 2); at output stride 8 at least 2 each."),
    Key("MODEL.TIMM.NAME", "resnet18", TEXT, "Name of the timm model, as in `timm.list_models()`."),
    Key("MODEL.TIMM.BN_MOMENTUM", 0.0, SHARE,
        "Share of a batch in the running BN statistics of the backbone (UniMatch's Xception: 0.0003); 0: timm's own."),
    Key("MODEL.TIMM.BN_EPS", 0.0, NOT_NEGATIVE,
        "What the backbone's BN adds to the variance (UniMatch's Xception: 0.00001); 0: timm's own."),
    Key("MODEL.XCEPTION.RECTIFIED_SHORTCUTS", False, FLAG,
        "Whether the shortcuts of the middle flow pass a ReLU: in UniMatch's code they do, in timm's they do not."),
    Key("MODEL.VIT.LAYERS", (),
        Constraint("four blocks in their order, such as (2, 5, 8, 11), or none", lambda value: len(value) in (0, 4)),
        "The four blocks of a vision transformer whose tokens are its feature maps, from 0; empty: the last of each "
        "quarter (UniMatch V2's large one: 4, 11, 17, 23)."),
    Key("MODEL.VIT.FROZEN", False, FLAG, "Leave the vision transformer as it is (UniMatch V2 on ADE20K)."),
    Key("MODEL.MASKCLIP.DIM", 512, COUNT, "Length of an embedding of build_maskclip_backbone's CLIP (ViT-B/16: 512)."),
    Key("MODEL.MASKCLIP.LAYERS", (0, 4),
        Constraint("one block or two in their order, such as (0, 4)", lambda value: len(value) in (1, 2)),
        "Blocks of MaskCLIP, from 0, whose maps are the skip connections. With one block, the other skip is the first "
        "stage of a ResNet, by MODEL.RESNETS (SemiVL on Cityscapes)."),
    Key("MODEL.MASKCLIP.CONV_WEIGHTS", "", TEXT,
        "First weights of that ResNet, in any form of MODEL.WEIGHTS, with which they are loaded; empty: random ones."),
    Key("MODEL.FPN.NORM", "", NORM, "Normalization of the feature pyramid; see MODEL.RESNETS.NORM. Empty: none."),

    Key("MODEL.SEM_SEG_HEAD.NAME", "EmbeddingDeepLabV3PlusHead", TEXT,
        "Segmentation head, by its name in Detectron2's SEM_SEG_HEADS_REGISTRY; it has to return an embedding: "
        "EmbeddingDeepLabV3PlusHead, DPTHead (vision transformers), SegFormerHead (MiT), AllSparkHead (AllSpark, which "
        "alone trains it) or VLGHead (SemiVL)."),
    Key("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 0, COUNT_FROM_0, "Number of classes; filled in from the data set."),
    Key("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res2", "res5"], NAMES,
        "Feature maps that the decoder reads; the last one goes through ASPP."),
    Key("MODEL.SEM_SEG_HEAD.PROJECT_FEATURES", ["res2"], NAMES, "Feature maps of the skip connections."),
    Key("MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", [48], COUNTS, "Channels of each skip connection."),
    Key("MODEL.SEM_SEG_HEAD.CONVS_DIM", 256, COUNT, "Channels of the decoder, and so of the embedding."),
    Key("MODEL.SEM_SEG_HEAD.DPT_CHANNELS", (96, 192, 384, 768), COUNTS,
        "DPTHead: channels of the four maps before the decoder (UniMatch V2's small one: half of these; large: 256, "
        "512, 1024, 1024)."),
    Key("MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 256, COUNT,
        "Channels of ASPP; VLGHead: of a class's maps (SemiVL: 128), a multiple of 64."),
    Key("MODEL.SEM_SEG_HEAD.ASPP_DILATIONS", [6, 12, 18], COUNTS, "Dilations of ASPP's branches."),
    Key("MODEL.SEM_SEG_HEAD.ASPP_DROPOUT", 0.0, SHARE,
        "Probability with which single values of ASPP's output are dropped."),
    Key("MODEL.SEM_SEG_HEAD.ASPP_POOL_NORM", False, FLAG,
        "Normalize ASPP's image pooling, as all published hosts do and Detectron2 does not. With BN each process then "
        "needs two images or more at a time."),
    Key("MODEL.SEM_SEG_HEAD.ASPP_FUSE_KERNEL", 1,
        Constraint("1, 3 or another odd number", lambda value: value > 0 and value % 2 == 1),
        "Kernel size of the convolution that fuses ASPP's branches (U2PL, AEL: 3)."),
    Key("MODEL.SEM_SEG_HEAD.DECODER_DROPOUT", 0.0, SHARE,
        "Probability with which a channel is dropped behind each of the decoder's convolutions after ASPP (U2PL, AEL: "
        "0.1), or behind SegFormerHead's last one (SegFormer: 0.1). The classifier sees the rest of the embedding, the "
        "weights see all of it."),
    Key("MODEL.SEM_SEG_HEAD.BIASED_CONVS", (), some_of("project", "fuse"),
        "Convolutions that have a bias although a norm follows, which cancels it. project: those of the skip "
        "connections (AugSeg); fuse: those after ASPP (U2PL, AEL: both)."),
    Key("MODEL.SEM_SEG_HEAD.INIT", "detectron2", one_of("detectron2", "pytorch"),
        "First weights. detectron2: Xavier's, close to 0 in the classifier; pytorch: those of `nn.Conv2d`, as in all "
        "published hosts."),
    Key("MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM", 0, COUNT_FROM_0,
        "Channels of the representation for contrastive losses, a second output of the decoder in training with the "
        "same dropout (U2PL: 256); 0: none."),
    Key("MODEL.SEM_SEG_HEAD.NORM", "auto", NORM, "Normalization of the segmentation heads; see MODEL.RESNETS.NORM."),
    Key("MODEL.SEM_SEG_HEAD.ALIGN_CORNERS", False, FLAG,
        "Of every resize in the segmentation heads. True suits crops of n * stride + 1 pixels, as in the published "
        "hosts; False suits n * stride."),

    Key("MODEL.VLG.TEXTS", (), PHRASES,
        "VLGHead: for each class, in their order, the phrases whose mean embedding guides the decoder; empty: the "
        "classes' names."),
    Key("MODEL.VLG.CONCEPTS", (), PHRASES,
        "VLGHead: for each class, in their order, the phrases that CLIP by itself knows it by, of which the most "
        "similar one counts (SemiVL's guidance); empty: TEXTS."),
    Key("MODEL.VLG.TEMPLATE", "a photo of a {}", Constraint("a text with {}", lambda value: value.count("{}") == 1),
        "The sentence in which CLIP's text encoder reads a phrase, in place of {}."),

    Key("MODEL.AUX_HEAD.ENABLED", False, FLAG,
        "A second classifier on an earlier feature map, for the labeled loss alone (U2PL on Cityscapes, AEL)."),
    Key("MODEL.AUX_HEAD.IN_FEATURE", "res4", TEXT, "Feature map that it reads."),
    Key("MODEL.AUX_HEAD.CHANNELS", 256, COUNT, "Channels of its convolution."),
    Key("MODEL.AUX_HEAD.DROPOUT", 0.1, SHARE, "Probability with which one of these channels is dropped."),
    Key("MODEL.AUX_HEAD.LOSS_WEIGHT", 0.4, NOT_NEGATIVE, "Factor of its loss."),
    Key("MODEL.METHOD_HEAD.NAME", "", TEXT,
        "A head that one method alone trains, by its name in `wpl_d2.modeling.METHOD_HEADS_REGISTRY`; predictions and "
        "exports do without. CorrelationHead: CorrMatch's; SelfAttentionCAM: PseudoSeg's; empty: none."),
    Key("MODEL.METHOD_HEAD.CHANNELS", 256, COUNT, "CorrelationHead: channels of its 3x3 convolution."),
    Key("MODEL.METHOD_HEAD.ATTENTION_DIM", 128, COUNT, "SelfAttentionCAM: channels by which cells are compared."),

    Key("MODEL.DETECTOR.MODE", "none", one_of("none", "shared", "cached", "alone"),
        "none: no detector; shared: on the segmenter's backbone; cached: a trained detector's boxes are read from the "
        "file CACHE; alone: nothing but a detector (META_ARCHITECTURE FPNDetector, FRAMEWORK.NAME Detector)."),
    Key("MODEL.DETECTOR.CACHE", "", TEXT, "File of detections that tools/cache_boxes.py wrote."),
    Key("MODEL.DETECTOR.CHANNELS", 256, COUNT,
        "Channels to which a 1x1 convolution reduces res5 before region proposals and box head."),
    Key("MODEL.DETECTOR.LOSS_WEIGHT", 1.0, NOT_NEGATIVE, "Factor of the detector's losses."),
    Key("MODEL.DETECTOR.CLASSES", (), IDS,
        "Semantic class ids of the detector's classes; filled in from the data set."),
    Key("MODEL.RPN.IN_FEATURES", ["det"], NAMES, "Feature maps of the region proposals; det is the reduced res5."),
    Key("MODEL.RPN.PRE_NMS_TOPK_TRAIN", 2000, COUNT, "Proposals kept before NMS in training."),
    Key("MODEL.RPN.PRE_NMS_TOPK_TEST", 500, COUNT, "Proposals kept before NMS in evaluation."),
    Key("MODEL.RPN.POST_NMS_TOPK_TRAIN", 500, COUNT, "Proposals kept after NMS in training."),
    Key("MODEL.RPN.POST_NMS_TOPK_TEST", 100, COUNT,
        "Proposals kept after NMS in evaluation. More cost a fifth of a small step and find nothing that 100 do not."),
    Key("MODEL.ANCHOR_GENERATOR.SIZES", [[32, 64, 128, 256, 512]], Constraint("a list of sizes for each feature map"),
        "Side lengths of the anchors in pixels."),
    Key("MODEL.ROI_HEADS.NAME", "StandardROIHeads", TEXT, "Box head, by its name in Detectron2's ROI_HEADS_REGISTRY."),
    Key("MODEL.ROI_HEADS.IN_FEATURES", ["det"], NAMES, "Feature maps of the box head."),
    Key("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 128, COUNT, "Proposals of each image that train the box head."),
    Key("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", TEXT,
        "Layers of the box head, by their name in Detectron2's ROI_BOX_HEAD_REGISTRY."),
    Key("MODEL.ROI_BOX_HEAD.NUM_FC", 2, COUNT_FROM_0, "Number of its fully connected layers."),
    Key("MODEL.ROI_BOX_HEAD.FC_DIM", 1024, COUNT, "Channels of these layers."),
    Key("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7, COUNT,
        "Height and width to which a proposal's features are pooled."),
)

_FRAMEWORK = (
    Key("FRAMEWORK.NAME", "MeanTeacher", TEXT,
        "Semi-supervised method, by its name in `wpl_d2.frameworks.FRAMEWORK_REGISTRY`."),
    Key("FRAMEWORK.ALPHA", 1.0, NOT_NEGATIVE, "Factor of all losses on unlabeled images (paper, eq. 4)."),
    Key("FRAMEWORK.THRESHOLD", 0.95, SHARE,
        "Least confidence of a pseudo-label that trains the student; no effect in U2PL, which selects by entropy, and "
        "in STPlusPlus, which selects images."),
    Key("FRAMEWORK.BURN_IN", 0, COUNT_FROM_0, "Steps of supervised training before the first pseudo-label."),
    Key("FRAMEWORK.BURN_IN_EPOCHS", 0, COUNT_FROM_0, "BURN_IN in epochs, see SOLVER.EPOCHS; 0: BURN_IN is used."),
    Key("FRAMEWORK.EMA_DECAY", 0.999, SHARE,
        "Bound of the teacher's decay min(1 - 1 / (t + 1), EMA_DECAY), t counted from the first semi-supervised step. "
        "0: the teacher is the student after the last step, which makes MeanTeacher FixMatch. PSMT: "
        "the decay itself, from its first step on."),
    Key("FRAMEWORK.EMA_BUFFERS", "ema", one_of("ema", "copy", "none"),
        "The teacher's BN statistics. ema: averaged as its weights; copy: the student's; none: its own."),
    Key("FRAMEWORK.EMA_COPY_EPOCHS", 0, COUNT_FROM_0, "EMA_COPY_STEPS in epochs; 0: EMA_COPY_STEPS is used."),
    Key("FRAMEWORK.EMA_COPY_STEPS", 0, COUNT_FROM_0,
        "Semi-supervised steps in which the teacher still is a copy of the student (U2PL: an epoch); PSMT has none."),
    Key("FRAMEWORK.FEATURE_DROPOUT", 0.5, SHARE,
        "UniMatch: share of the feature maps' channels that are dropped in the perturbed stream."),
    Key("FRAMEWORK.CUTMIX.PROB", 0.5, SHARE,
        "Probability of CutMix between unlabeled images: of each image, in PCR and U2PL of the batch."),
    Key("FRAMEWORK.CUTMIX.AREA", (0.02, 0.4), AREA,
        "Range of the share of an image that is cut out; in CPS by three boxes together."),
    Key("FRAMEWORK.CUTMIX.RATIO", (0.3, 1 / 0.3), RANGE, "Range of its aspect ratio; no effect in CPS."),
    Key("FRAMEWORK.OHEM.ENABLED", False, FLAG, "Average the labeled loss over hard pixels alone."),
    Key("FRAMEWORK.OHEM.THRESHOLD", 0.7, SHARE,
        "A pixel is hard if the probability of its true class is at most this."),
    Key("FRAMEWORK.OHEM.MIN_KEPT", 100_000, COUNT,
        "Least number of pixels of each process's batch that train; it is not scaled with the batch."),

    Key("FRAMEWORK.CLASS_WEIGHTS.KIND", "none", one_of("none", "inverse", "median", "list"),
        "Weights of the classes in the labeled losses. inverse: inverse to a class's labeled pixels, of mean 1 over "
        "all; median: median frequency balancing (Eigen and Fergus, ICCV 2015); list: VALUES."),
    Key("FRAMEWORK.CLASS_WEIGHTS.VALUES", (),
        Constraint("one number, 0 or more, for each class", lambda value: all(weight >= 0 for weight in value)),
        "Weights for list, in the order of the classes."),

    Key("FRAMEWORK.PC2SEG.CONTRAST_WEIGHT", 0.1, NOT_NEGATIVE, "PC2Seg: factor of the contrastive loss."),
    Key("FRAMEWORK.PC2SEG.TEMPERATURE", 0.5, POSITIVE, "Temperature of the contrastive loss."),
    Key("FRAMEWORK.PC2SEG.ANCHORS", 512, COUNT,
        "Anchors of a process's batch. Time and memory of the loss grow with ANCHORS * NEGATIVES."),
    Key("FRAMEWORK.PC2SEG.NEGATIVES", 64, COUNT, "Negatives of each anchor."),

    Key("FRAMEWORK.U2PL.UNRELIABLE", 20.0, Constraint("percent, from 0 to below 50", lambda value: 0 <= value < 50),
        "U2PL: percent of the pixels, those of highest entropy, that only serve as negatives; falls linearly to 0 at "
        "SOLVER.MAX_ITER."),
    Key("FRAMEWORK.U2PL.CONTRAST_WEIGHT", 1.0, Constraint("a number"),
        "Factor of the contrastive loss. The published code's 1 corresponds to 0.25 here (Cityscapes: 0.125), see "
        "`wpl_d2.frameworks.U2PL`; paper: 0.1."),
    Key("FRAMEWORK.U2PL.TEMPERATURE", 0.5, POSITIVE, "Temperature of the contrastive loss."),
    Key("FRAMEWORK.U2PL.ANCHORS", 256, COUNT,
        "Anchors of each class. Time and memory of the loss grow with ANCHORS * NEGATIVES."),
    Key("FRAMEWORK.U2PL.NEGATIVES", 50, COUNT, "Negatives of each anchor."),
    Key("FRAMEWORK.U2PL.ANCHOR_PROB", 0.3, SHARE, "An anchor's class has more than this probability."),
    Key("FRAMEWORK.U2PL.NEGATIVE_RANKS", (3, 20),
        Constraint("a rank from 0 on and a higher one, such as (3, 20)",
                   lambda value: is_numbers(value, 2) and 0 <= value[0] < value[1]),
        "An unreliable pixel is a negative of the classes from the first rank on to below the second, by probability."),
    Key("FRAMEWORK.U2PL.QUEUE_SIZE", 30_000, COUNT,
        "Negatives kept of each class but class 0. Each takes 2 * REPRESENTATION_DIM bytes, in checkpoints too."),
    Key("FRAMEWORK.U2PL.QUEUE_SIZE_FIRST", 50_000, COUNT, "Negatives kept of class 0."),
    Key("FRAMEWORK.U2PL.KEYS_PER_STEP", 256, COUNT, "Negatives of each class that each process adds in one step."),
    Key("FRAMEWORK.U2PL.CONTRAST_AS_PUBLISHED", False, FLAG,
        "Choose anchors and negatives as the published code does, with its faults."),

    Key("FRAMEWORK.AEL.MOMENTUM", 0.999, SHARE,
        "AEL: share of the former value in each class's running confidence on labeled pixels."),
    Key("FRAMEWORK.AEL.PASTE_CLASSES", 1, COUNT,
        "Draws, with replacement, of the classes that a step pastes from second labeled images; to paste nothing, set "
        "INPUT.PASTE.PROB to 0."),
    Key("FRAMEWORK.AEL.HEAD_CLASSES", (), IDS, "Classes that are never pasted."),
    Key("FRAMEWORK.AEL.PRESENCE_AREA", 0.03, SHARE,
        "An unlabeled image is taken to show the classes that cover at least this share of its view."),
    Key("FRAMEWORK.AEL.COMPONENT_AREA", 0.03, SHARE,
        "CutMix cuts out the box around a connected component of a class that covers more than this share."),
    Key("FRAMEWORK.ALLSPARK.MEMORY_AFTER_STEPS", 1000, COUNT_FROM_0,
        "AllSpark: semi-supervised steps after which labeled images are rebuilt from the memory of unlabeled ones' "
        "channels; before, from those of their batch."),
    Key("FRAMEWORK.ALLSPARK.MEMORY_AFTER_EPOCHS", 0, COUNT_FROM_0,
        "MEMORY_AFTER_STEPS in epochs; 0: MEMORY_AFTER_STEPS is used."),

    Key("FRAMEWORK.PCR.PROTOTYPES", 4, COUNT, "PCR: prototypes of each class (Cityscapes: 3)."),
    Key("FRAMEWORK.PCR.PROTOTYPE_WEIGHT", 1.0, NOT_NEGATIVE, "Factor of the losses of the classifier by prototypes."),
    Key("FRAMEWORK.PCR.TEMPERATURE", 0.1, POSITIVE, "What cosines with prototypes are divided by."),
    Key("FRAMEWORK.PCR.MOMENTUM", 0.99, SHARE, "Share of a prototype that stays in a step."),
    Key("FRAMEWORK.PCR.GRID", 32, COUNT,
        "Cells in a row and in a column of an image, of each of which one pixel moves prototypes."),
    Key("FRAMEWORK.PCR.BANK_SIZE", 512, COUNT,
        "Labeled pixels of each class that are clustered after FRAMEWORK.BURN_IN steps, or after the first one where "
        "that is 0. Each micro-batch of each process adds a sixteenth."),

    Key("FRAMEWORK.PSEUDOSEG.CUTOUT", 100, COUNT_FROM_0,
        "PseudoSeg: side in pixels of the square that is cut out of a strong view; 0: nothing is."),
    Key("FRAMEWORK.PSEUDOSEG.TEMPERATURE", 0.5, POSITIVE,
        "Pseudo-labels' probabilities are raised to the power of its inverse; 1 leaves them as they are."),

    Key("FRAMEWORK.SEMIVL.GUIDANCE_WEIGHT", 0.1, NOT_NEGATIVE,
        "SemiVL: factor of the loss of CLIP's own labels in the first step; falls linearly to 0 at SOLVER.MAX_ITER."),
    Key("FRAMEWORK.SEMIVL.GUIDANCE_CONF", 0.9, SHARE, "Least confidence of a label of CLIP that trains."),
    Key("FRAMEWORK.SEMIVL.CONFIDENCE", "threshold", one_of("threshold", "mean"),
        "What the student's pseudo-labels count by. threshold: FRAMEWORK.THRESHOLD alone; mean: also the mean "
        "confidence of their image (published on Cityscapes, without a threshold)."),
    Key("FRAMEWORK.SEMIVL.WEIGHTED", ("guidance",), some_of("guidance", "consistency"),
        "Losses to which the weights apply. guidance: that of CLIP's labels (the paper); consistency: those of the "
        "student's pseudo-labels."),
    Key("FRAMEWORK.ST_PLUS_PLUS.SELECTIVE", True, FLAG,
        "True, ST++: the first model labels the most reliable images, the second one, trained on these, the others. "
        "False, ST: the first one labels all."),
    Key("FRAMEWORK.ST_PLUS_PLUS.RELIABLE", 0.5, Constraint("a number between 0 and 1", lambda value: 0 < value < 1),
        "Share of the unlabeled images that are reliable: those whose labels changed least in the first training."),
    Key("FRAMEWORK.ST_PLUS_PLUS.LABELER", "best", one_of("best", "last"),
        "The model of a training that labels: that of its best evaluation, as published, or its last."),
    Key("FRAMEWORK.ST_PLUS_PLUS.SCALES", (0.5, 0.75, 1.0, 1.5, 2.0), SCALES,
        "Factors of the image's size at which it is labeled, each mirrored too; their probabilities are averaged. All "
        "else is as TEST.INFERENCE says."),
    Key("FRAMEWORK.ST_PLUS_PLUS.MAX_ITERS", (), STEPS,
        "Steps of the first training and, in ST++, of the second; empty: as many epochs as the last one has, and twice "
        "that many in the first one with fewer than 200 labeled images, as published."),
    Key("FRAMEWORK.ST_PLUS_PLUS.CUTOUT.PROB", 0.5, SHARE,
        "Probability that a box of a strong view becomes noise without a label (Cutout)."),
    Key("FRAMEWORK.ST_PLUS_PLUS.CUTOUT.AREA", (0.02, 0.4), AREA, "Range of the box's share of the view."),
    Key("FRAMEWORK.ST_PLUS_PLUS.CUTOUT.RATIO", (0.3, 1 / 0.3), RANGE, "Range of its aspect ratio."),

    Key("FRAMEWORK.AUGSEG.INJECTION", True, FLAG,
        "AugSeg: paste patches of labeled images, more often where the teacher is less sure."),

    Key("FRAMEWORK.CORRMATCH.REGIONS", 128, COUNT_FROM_0,
        "CorrMatch: random cells of an image, over whose correlation maps labels spread; 0: none do."),
    Key("FRAMEWORK.CORRMATCH.MOMENTUM", 0.999, SHARE,
        "Share of the threshold, which begins with FRAMEWORK.THRESHOLD, that stays in a step."),

    Key("FRAMEWORK.PREVMATCH.PUSH_STEPS", 1000, COUNT,
        "PrevMatch: steps after each of which the student joins the pool of past students."),
    Key("FRAMEWORK.PREVMATCH.PUSH_EPOCHS", 0, COUNT_FROM_0, "PUSH_STEPS in epochs; 0: PUSH_STEPS is used."),
    Key("FRAMEWORK.PREVMATCH.POOL_SIZE", 8, COUNT, "Students of the pool; new ones replace old ones."),
    Key("FRAMEWORK.PREVMATCH.MEMBERS", 3, COUNT, "Most of them that label together in a step."),
    Key("FRAMEWORK.PREVMATCH.THRESHOLD", 0.9, SHARE, "Least confidence of their labels that train."),
    Key("FRAMEWORK.PREVMATCH.BY_IMAGE", False, FLAG,
        "Multiply the loss with their labels by an image's mean confidence (Cityscapes)."),

    Key("FRAMEWORK.PSMT.TURN_STEPS", 1000, COUNT,
        "PSMT: semi-supervised steps in which one teacher follows the student, before it is the other one's turn."),
    Key("FRAMEWORK.PSMT.TURN_EPOCHS", 0, COUNT_FROM_0, "TURN_STEPS in epochs; 0: TURN_STEPS is used."),
    Key("FRAMEWORK.PSMT.RAMP_STEPS", 0, COUNT_FROM_0,
        "Semi-supervised steps in which the factor of the unlabeled loss rises from 0 to ALPHA, along a cosine."),
    Key("FRAMEWORK.PSMT.RAMP_EPOCHS", 0, COUNT_FROM_0, "RAMP_STEPS in epochs; 0: RAMP_STEPS is used."),
    Key("FRAMEWORK.PSMT.TOP_CLASSES", 7, COUNT,
        "Of each pixel, most probable classes of the idle teacher that keep its logits; others get the active one's."),
    Key("FRAMEWORK.PSMT.CUTMIX", "beta", one_of("beta", "boxes"),
        "beta: one box, whose area is drawn for the batch (VOC); boxes: three of CUTMIX.AREA each (Cityscapes)."),
    Key("FRAMEWORK.PSMT.VAT_RADIUS", 2.0, NOT_NEGATIVE,
        "Length of the noise that is added to an image's decoder features, all of them as one vector."),
    Key("FRAMEWORK.PSMT.VAT_STEP", 1e-6, POSITIVE,
        "Distance from the features at which its direction is found. Float32 rounds the published 1e-6 away, so that "
        "there is next to no noise; 0.1 is far enough."),
)

_WEIGHTING = (
    Key("PSEUDO_LABEL.REFINE", "none", one_of("none", "tta", "component_vote", "prototype", "detector"),
        "How pseudo-labels are corrected before they are weighted; no published host does it. tta: by the mean over "
        "three more views; component_vote: one class for each connected object; prototype: probabilities times "
        "similarity to prototypes; detector: the class of the boxes around an object, where they name another one."),
    Key("WEIGHTING.ENABLED", False, FLAG, "PPW: weight the loss of each pseudo-label (paper, section 3.3)."),
    Key("WEIGHTING.KIND", ("rank",), NAMES,
        "Score in [0, 1] that makes the weight, or several to be multiplied; see wpl_d2/weighting/scores.py. From the "
        "memory bank: rank (the paper's), rank_margin, cosine, cosine_margin, euclidean, knn_margin; from "
        "probabilities: confidence, object, softmatch, and csl and covar, which are reconstructions; from boxes: "
        "detector; from three more forwards: tta; learned from several of these: calibrated."),
    Key("WEIGHTING.POWER", 1.0, POSITIVE, "Exponent of the score; above 1 it is sharpened."),
    Key("WEIGHTING.PER_CLASS", False, FLAG,
        "Divide the score by its running mean over the class, so that hard classes lose nothing."),
    Key("WEIGHTING.OBJECT", "component", one_of("component", "class"),
        "Pixels over which the score object averages the confidence: a connected component, or all of the class."),
    Key("WEIGHTING.MOMENTUM", 0.999, SHARE,
        "Share of the former value in the running means of PER_CLASS and of the score softmatch."),
    Key("WEIGHTING.CENTERED", False, FLAG,
        "Subtract the mean prototype from pixel and prototype before they are compared."),
    Key("WEIGHTING.K", 5, COUNT, "Number of most active channels that the score rank compares."),
    Key("WEIGHTING.WEIGHT_FORM", "paper", one_of("paper", "plus_one"),
        "Weight of a score s. paper: s, in [0, 1]; plus_one: s + 1, in [1, 2]."),
    Key("WEIGHTING.NORM", "valid", one_of("valid", "weight_sum"),
        "What the weighted loss is divided by: the number of valid pixels, or the sum of their weights."),
    Key("WEIGHTING.TOPK_RES", "stride4", one_of("stride4", "full"),
        "Where pixels are compared. stride4: at the embedding's resolution; full: after bilinear upsampling to the "
        "label's."),
    Key("WEIGHTING.LABELED_FROM", "student", one_of("student", "teacher"),
        "Whose embeddings of labeled images enter the bank: the student's, at no cost, or the teacher's, for one more "
        "forward."),
    Key("WEIGHTING.UNLAB_VIEW", "weak", one_of("weak", "strong"),
        "View whose embeddings of unlabeled images enter the bank: the teacher's of the weak one, or the student's of "
        "the strong one."),
    Key("WEIGHTING.BANK_SIZE", 256, COUNT, "Embeddings of each class in each of the two rings, labeled and unlabeled."),
    Key("WEIGHTING.PUSH_PER_IMAGE", 1, COUNT,
        "Random pixels of each class that each process adds to a ring in one step, per image of its batch."),
    Key("WEIGHTING.MIN_COUNT", 16, COUNT, "Pixels of a class with fewer embeddings in the bank have neutral weights."),
    Key("WEIGHTING.LABELED_CONF", 0.95, SHARE,
        "Labeled pixels enter the bank if they are predicted correctly with more than this confidence."),
    Key("WEIGHTING.RECORD_PERIOD", 0, COUNT_FROM_0,
        "Steps between records of the prototypes in prototypes.npy, for figures of a training; 0: none."),
    Key("WEIGHTING.CALIBRATED.SCORES", ("confidence", "object", "cosine_margin"), NAMES,
        "Kinds from which the score calibrated learns how probably a label is right."),
    Key("WEIGHTING.CALIBRATED.PERIOD", 100, COUNT,
        "Steps between two fits of calibrated. They use a fifth of the labeled images, which train nothing before the "
        "last fifth of the schedule; from then on they train, and the last fit stays."),
    Key("RPPI.ENABLED", False, FLAG,
        "RPPI: pixels on which segmenter and detector agree enter the bank (paper, section 3.2); needs a detector."),
    Key("RPPI.CONF", 0.95, SHARE, "Least confidence of such a pixel."),
    Key("RPPI.BOX_SCORE", 0.85, SHARE, "Least score of a box of its class around it."),
)

_SOLVER = (
    Key("SOLVER.MAX_ITER", 40_000, COUNT, "Steps of the training."),
    Key("SOLVER.EPOCHS", 0, COUNT_FROM_0,
        "Length of the training in epochs of the unlabeled images (without any, of the labeled ones), from which "
        "MAX_ITER is set when a run starts; 0: MAX_ITER says it. An epoch is counted as published: each of "
        "REFERENCE_WORLD_SIZE processes has its share of the images, rounded up, and drops the rest that fills no "
        "batch of REFERENCE_IMS_PER_BATCH (or IMS_PER_BATCH) images over all processes. Of a key in epochs and its key "
        "in steps, the one counts that a later file or the command line sets; both in one place is an error."),
    Key("SOLVER.REFERENCE_WORLD_SIZE", 0, COUNT_FROM_0, "Processes for which EPOCHS counts steps; 0: one."),
    Key("SOLVER.IMS_PER_BATCH", 8, COUNT, "Labeled images of a step, over all processes."),
    Key("SOLVER.UNLABELED_IMS_PER_BATCH", 8, COUNT_FROM_0, "Unlabeled images of a step, over all processes."),
    Key("SOLVER.GRAD_ACCUMULATION", 1, COUNT,
        "Micro-batches into which each process divides its images of a step, for GPUs with little memory: their "
        "gradients add up to one step's. What every method computes for each of them stands with its class in "
        "`wpl_d2.frameworks`."),
    Key("SOLVER.REFERENCE_IMS_PER_BATCH", 0, COUNT_FROM_0,
        "IMS_PER_BATCH for which learning rate and numbers of steps are given: with another one they are scaled, "
        "except those set on the command line without this key (see `wpl_d2.engine.solver.scale_schedule`); 0: never."),
    Key("SOLVER.OPTIMIZER", "SGD", one_of("SGD", "AdamW"), "Optimizer."),
    Key("SOLVER.BASE_LR", 0.001, POSITIVE, "Learning rate of the backbone."),
    Key("SOLVER.HEAD_LR_FACTOR", 10.0, NOT_NEGATIVE,
        "Learning rate of the segmentation heads, as a factor of BASE_LR."),
    Key("SOLVER.DETECTOR_LR_FACTOR", 1.0, NOT_NEGATIVE,
        "Learning rate of the detector, as a factor of BASE_LR; detectors diverge if they start fast."),
    Key("SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR",
        one_of("WarmupPolyLR", "WarmupCosineLR", "WarmupMultiStepLR", "WarmupStepWithFixedGammaLR"),
        "Schedule of the learning rate."),
    Key("SOLVER.WARMUP_ITERS", 0, COUNT_FROM_0, "Steps in which the learning rate rises at the start."),
    Key("SOLVER.WEIGHT_DECAY_NORM", None, Constraint("None, or a number"),
        "Weight decay of normalization layers; None: SOLVER.WEIGHT_DECAY."),
    Key("SOLVER.CHECKPOINT_PERIOD", 5000, COUNT_FROM_0,
        "Steps between checkpoints; others are written before evaluations and at the end. 0: these alone."),
    Key("SOLVER.CHECKPOINT_EPOCHS", 0, COUNT_FROM_0, "Epochs between checkpoints; 0: CHECKPOINT_PERIOD is used."),
    Key("SOLVER.CHECKPOINT_STEPS", (), STEPS,
        "Numbers of steps after which a checkpoint is written too, and kept."),
    Key("SOLVER.CHECKPOINTS_TO_KEEP", 2, COUNT, "Periodic checkpoints to keep beside the best and the last one."),
    Key("SOLVER.CHECKPOINT_BUCKET", "", BUCKET,
        "Folder of a bucket that gets a copy of each checkpoint; a run that goes on and finds none in OUTPUT_DIR, as "
        "on a new machine, takes the newest from there."),
    Key("SOLVER.EARLY_STOPPING.PATIENCE", 0, COUNT_FROM_0,
        "Evaluations in a row without a better mIoU (of a detector alone: box AP) after which the training ends; 0: it "
        "always takes MAX_ITER steps. `model_best.pth` is the model of the best evaluation."),
    Key("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "value", one_of("value", "norm"),
        "How gradients are clipped, with SOLVER.CLIP_GRADIENTS.ENABLED."),
    Key("SOLVER.AMP.DTYPE", "bfloat16", one_of("bfloat16", "float16"),
        "Type of mixed precision, with SOLVER.AMP.ENABLED; float16 needs a GPU."),
)

_TEST = (
    Key("TEST.EVAL_PERIOD", 0, COUNT_FROM_0, "Steps between evaluations, the last one at the end; 0: no evaluation."),
    Key("TEST.EVAL_EPOCHS", 0, COUNT_FROM_0, "Epochs between evaluations; 0: EVAL_PERIOD is used."),
    Key("TEST.EVALUATOR", "confusion", one_of("confusion", "detectron2", "submission"),
        "confusion: one confusion matrix on the device; detectron2: its SemSegEvaluator; submission: no figures and "
        "no masks needed, but one PNG of the data set's own ids per image, as the Cityscapes server takes them."),
    Key("TEST.STUDENT", False, FLAG, "Also evaluate the student where the teacher is what is evaluated and exported."),
    Key("TEST.PSEUDO_LABELS", (), NAMES,
        "Lists with masks on which pseudo-labels are evaluated, such as that of the unlabeled images."),
    Key("TEST.BOX_SCORES", (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
        Constraint("scores from 0 to 1", lambda value: all(0 <= score <= 1 for score in value)),
        "With a detector, pseudo-labels are evaluated inside and outside of its boxes from each of these scores on."),
    Key("TEST.BOX_IOU", 0.8, SHARE,
        "A box is right if its IoU with a component of its class is at least this (paper, supplementary table 1)."),
    Key("TEST.INFERENCE.MODE", "whole", one_of("whole", "slide", "crop"),
        "How an image is segmented. whole: at once; slide: in overlapping windows, averaged; crop: the center alone, "
        "and only that is judged. Boxes are always found on the whole image."),
    Key("TEST.INFERENCE.CROP_SIZE", (513, 513), SIZE, "Size of the windows of slide and of the center of crop."),
    Key("TEST.INFERENCE.JUDGE_PADDING", False, FLAG,
        "With crop, judge smaller images on their padding too, as class 0: U2PL's and AEL's own figures on VOC do."),
    Key("TEST.INFERENCE.STRIDE", (342, 342), SIZE, "Step from window to window, down and to the right."),
    Key("TEST.INFERENCE.BORDER", "shift", one_of("shift", "truncate"),
        "Windows that cross the image's border. shift: moved inside, and smaller images are padded to the window "
        "(U2PL, AEL); truncate: cut off (UniMatch, AugSeg)."),
    Key("TEST.INFERENCE.AVERAGE", "probability", one_of("probability", "logit"),
        "What is averaged over windows, flips and scales: probabilities (UniMatch, AugSeg, AEL) or logits (U2PL)."),
    Key("TEST.INFERENCE.WINDOW_BATCH", 1, COUNT,
        "Windows that the model gets at once; more are faster on a GPU and take more memory."),
    Key("TEST.INFERENCE.SHORTER_SIDE", 0, COUNT_FROM_0,
        "Length in pixels to which an image's shorter side is resized before all else (SemiVL on VOC: 512); 0: images "
        "keep their size."),
    Key("TEST.INFERENCE.FLIP", False, FLAG, "Test-time augmentation: also predict the mirrored image."),
    Key("TEST.INFERENCE.SCALES", (1.0,), SCALES,
        "Test-time augmentation: factors of the image's size."),
)

KEYS = (*_GENERAL, *_DATA, *_MODEL, *_FRAMEWORK, *_WEIGHTING, *_SOLVER, *_TEST)

_RENAMED_PREFIXES = {
    "SOLVER.PICTURE_": "VIS_",
    "WEIGHTING.SIMILARITY": "WEIGHTING.KIND",
}
"""How former keys began, one key or all those of a section, and how they begin now."""

RENAMED = {
    old + key.name.removeprefix(new): key.name
    for old, new in _RENAMED_PREFIXES.items()
    for key in KEYS
    if key.name.startswith(new)
}
"""Keys of former versions and their present names: errors name these, and configs in old checkpoints are translated."""

RENAMED_VALUES = {
    "TEST.EVALUATOR": {"label_files": "submission"},
    "WEIGHTING.LABELED_FROM": {"labeler": "teacher"},
}
"""By present key, the values of former versions and their present names; used as `RENAMED` is."""

_OWN_CROP = "set INPUT.CROP_SIZE and INPUT.SCALE_RANGE"
UNUSED = {
    "DATALOADER.ASPECT_RATIO_GROUPING": "all crops have one size",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": "all listed images are used",
    "DATALOADER.SAMPLER_TRAIN": "images come in counted permutations; set DATALOADER.CLASS_BALANCED to draw by class",
    "INPUT.CROP.ENABLED": _OWN_CROP,
    "INPUT.CROP.SIZE": _OWN_CROP,
    "INPUT.CROP.TYPE": _OWN_CROP,
    "INPUT.MAX_SIZE_TRAIN": _OWN_CROP,
    "INPUT.MIN_SIZE_TRAIN": _OWN_CROP,
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": _OWN_CROP,
    "MODEL.RESNETS.RES5_DILATION": "set MODEL.BACKBONE.OUTPUT_STRIDE and MODEL.RESNETS.RES5_BLOCK_DILATIONS",
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": "the data set's DESCRIPTION says it (ignore)",
    "MODEL.SEM_SEG_HEAD.LOSS_TYPE": "set FRAMEWORK.OHEM.ENABLED for hard pixels",
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": "set FRAMEWORK.ALPHA and MODEL.DETECTOR.LOSS_WEIGHT, the factors of the others",
    "TEST.AUG.ENABLED": "set TEST.INFERENCE.FLIP and TEST.INFERENCE.SCALES",
    "TEST.AUG.FLIP": "set TEST.INFERENCE.FLIP",
    "TEST.AUG.MIN_SIZES": "set TEST.INFERENCE.SCALES",
    "TEST.PRECISE_BN.ENABLED": "statistics are those of the training",
}
"""Keys of Detectron2 that nothing here reads, and what to do instead."""
