"""Every key that the project adds to Detectron2's config, with its default. Presets are YAML files in configs/."""

from __future__ import annotations

from detectron2.config import CfgNode as CN


def add_wpl_config(cfg: CN) -> None:
    """Add the project's keys to `cfg`, in place."""
    _add_data(cfg)
    _add_model(cfg)
    _add_framework(cfg)
    _add_solver(cfg)
    _add_evaluation(cfg)


def _add_data(cfg: CN) -> None:
    # The YAML that describes the data set (see configs/datasets/); its lists are registered as NAME_LIST.
    cfg.DATASETS.DESCRIPTION = ""
    # A split of the data set, such as "1_16": its lists SPLIT_labeled and SPLIT_unlabeled become TRAIN and UNLABELED,
    # and it stands for {split} in OUTPUT_DIR and MODEL.DETECTOR.CACHE. A list that is set in the same file, in one that
    # has it as its _BASE_, or on the command line, stands; and an UNLABELED that is set to () stays empty.
    cfg.DATASETS.SPLIT = ""
    cfg.DATASETS.TRAIN = ()
    cfg.DATASETS.TEST = ()
    # Images without labels: names as in TRAIN. Their masks, if there are any, are never read by training.
    cfg.DATASETS.UNLABELED = ()
    # Read all labeled and evaluation images and masks to their last pixel before the first step; what passed is
    # remembered in $WPL_D2_CACHE (default ~/.cache/wpl_d2). False: only some of each list.
    cfg.DATASETS.VERIFY_FILES = True
    # Components of a mask with fewer pixels get no box.
    cfg.DATASETS.MIN_BOX_AREA = 90

    cfg.INPUT.FORMAT = "RGB"
    # Images are predicted at their own size.
    cfg.INPUT.MIN_SIZE_TEST = 0
    # (height, width) of the training crop, any size; smaller images are padded to it at the right and the bottom.
    cfg.INPUT.CROP_SIZE = (321, 321)
    # Range of the factor by which an image is resized before the crop.
    cfg.INPUT.SCALE_RANGE = (0.5, 2.0)
    # False: the factor is uniform; True: below 1 in half of the draws and above 1 in the others (U2PL, AEL). Also of
    # INPUT.PASTE.
    cfg.INPUT.SCALE_BALANCED = False
    # How. antialias: smoothed before it is made smaller (PIL; UniMatch, AugSeg); bilinear: not smoothed (torch; U2PL,
    # AEL). In both a mask's pixel is the nearest one, by the rule that PIL or torch has for it.
    cfg.INPUT.RESIZE = "antialias"
    # Long side in pixels that factor 1 stands for (AugSeg on VOC: 500); 0: the image's own.
    cfg.INPUT.SCALE_BASE = 0
    # The strong view. jitter: colour jitter, greyscale and blur (UniMatch and most of its successors); intensity: 1 to
    # MAX_OPERATIONS random operations, each of a random strength, with JITTER and the probabilities unused (AugSeg).
    cfg.INPUT.STRONG = CN()
    cfg.INPUT.STRONG.KIND = "jitter"
    cfg.INPUT.STRONG.VIEWS = 1
    cfg.INPUT.STRONG.MAX_OPERATIONS = 3
    cfg.INPUT.STRONG.JITTER = (0.5, 0.5, 0.5, 0.25)  # brightness, contrast, saturation, hue
    cfg.INPUT.STRONG.JITTER_PROB = 0.8
    cfg.INPUT.STRONG.GRAY_PROB = 0.2
    cfg.INPUT.STRONG.BLUR_PROB = 0.5
    cfg.INPUT.STRONG.BLUR_SIGMA = (0.1, 2.0)

    # A second labeled image that comes with a labeled one, for a framework to paste from (AEL): how probable it is, and
    # the range of its resize. Frameworks that paste nothing refuse a probability above 0.
    cfg.INPUT.PASTE = CN()
    cfg.INPUT.PASTE.PROB = 0.0
    cfg.INPUT.PASTE.SCALE_RANGE = (0.1, 2.0)

    # Images of one step over all GPUs: SOLVER.IMS_PER_BATCH labeled ones and this many unlabeled ones.
    cfg.SOLVER.IMS_PER_BATCH = 8
    cfg.SOLVER.UNLABELED_IMS_PER_BATCH = 8
    # The IMS_PER_BATCH that learning rate and numbers of steps are meant for: at another one they are scaled (see
    # engine/solver.py), but for what the command line sets without setting this key too; 0: never.
    cfg.SOLVER.REFERENCE_IMS_PER_BATCH = 0
    # Processes by which an epoch is counted (see SOLVER.EPOCHS); 0: one.
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 0


def _add_model(cfg: CN) -> None:
    cfg.MODEL.META_ARCHITECTURE = "UnifiedSegDet"
    # MODEL.WEIGHTS is a training's checkpoint of other classes, or of these in another order. True: a class keeps its
    # weights by its name, others begin anew; False: such a checkpoint is refused.
    cfg.MODEL.MATCH_CLASSES = False
    # Torchvision's statistics of RGB in 0..255.
    cfg.MODEL.PIXEL_MEAN = [123.675, 116.28, 103.53]
    cfg.MODEL.PIXEL_STD = [58.395, 57.12, 57.375]

    # build_unified_resnet_backbone: ResNet 50/101; build_timm_backbone: any timm model with `features_only`;
    # build_xception_backbone: Xception 41/65/71 as UniMatch has it.
    cfg.MODEL.BACKBONE.NAME = "build_unified_resnet_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    # Stride of res5: 8 or 16; 32 under an FPN.
    cfg.MODEL.BACKBONE.OUTPUT_STRIDE = 16
    # "auto": BN on one process, SyncBN on several GPUs, naiveSyncBN on several CPU processes.
    cfg.MODEL.RESNETS.NORM = "auto"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    # deeplab: three 3x3 convolutions (UniMatch); deeplab_ceil: the same, and pooling that rounds up, so that a crop of
    # n * stride pixels does as one of n * stride + 1 (AugSeg, U2PL, AEL); basic: torchvision's 7x7.
    cfg.MODEL.RESNETS.STEM_TYPE = "deeplab"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # Dilation of each res5 block (UniMatch: 1, 2, 2).
    cfg.MODEL.RESNETS.RES5_BLOCK_DILATIONS = (1, 2, 2)
    cfg.MODEL.TIMM = CN()
    cfg.MODEL.TIMM.NAME = "resnet18"
    # Share of a batch in BN's running statistics, of the backbone alone (UniMatch's Xception: 0.0003); 0: timm's own.
    cfg.MODEL.TIMM.BN_MOMENTUM = 0.0
    # What its BN adds to the variance (UniMatch's Xception: 0.00001); 0: timm's own.
    cfg.MODEL.TIMM.BN_EPS = 0.0
    # Whether the shortcuts of the middle flow pass a ReLU: in UniMatch's code they do, in timm's they do not.
    cfg.MODEL.XCEPTION = CN()
    cfg.MODEL.XCEPTION.RECTIFIED_SHORTCUTS = False

    cfg.MODEL.SEM_SEG_HEAD.NAME = "EmbeddingDeepLabV3PlusHead"
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["res2", "res5"]
    cfg.MODEL.SEM_SEG_HEAD.PROJECT_FEATURES = ["res2"]
    cfg.MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS = [48]
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 256  # width of the embedding
    cfg.MODEL.SEM_SEG_HEAD.ASPP_CHANNELS = 256
    cfg.MODEL.SEM_SEG_HEAD.ASPP_DILATIONS = [6, 12, 18]
    cfg.MODEL.SEM_SEG_HEAD.ASPP_DROPOUT = 0.0
    # Whether ASPP's image pooling is normalized, as in all published hosts; Detectron2's is not. With BN, a process
    # then has to train on two images or more at a time.
    cfg.MODEL.SEM_SEG_HEAD.ASPP_POOL_NORM = False
    # Kernel size of the convolution that fuses ASPP's branches (U2PL, AEL: 3).
    cfg.MODEL.SEM_SEG_HEAD.ASPP_FUSE_KERNEL = 1
    # Probability of a channel to be dropped behind each of the decoder's convolutions after ASPP (U2PL, AEL: 0.1); of
    # the embedding the classifier sees the rest, the weights see all channels. ASPP_DROPOUT drops single values.
    cfg.MODEL.SEM_SEG_HEAD.DECODER_DROPOUT = 0.0
    # Convolutions that have a bias although a norm follows, which cancels it: project, those of the skips (AugSeg); and
    # fuse, those after ASPP (U2PL and AEL: both).
    cfg.MODEL.SEM_SEG_HEAD.BIASED_CONVS = ()
    # Initial weights. detectron2: Xavier's, in the classifier close to 0; pytorch: as `nn.Conv2d` draws them, as in all
    # published hosts.
    cfg.MODEL.SEM_SEG_HEAD.INIT = "detectron2"
    # Length of the pixels' representation for contrastive losses, a second output of the decoder in training, with the
    # same dropout (U2PL: 256); 0: none.
    cfg.MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM = 0
    cfg.MODEL.SEM_SEG_HEAD.NORM = "auto"
    # Of every resize in the segmentation heads. True with crops of the form n * stride + 1, as the published hosts;
    # False with n * stride.
    cfg.MODEL.SEM_SEG_HEAD.ALIGN_CORNERS = False
    # Filled in from the data set.
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 0

    # A second classifier on an earlier feature map, for the labeled loss alone (U2PL on Cityscapes, AEL).
    cfg.MODEL.AUX_HEAD = CN()
    cfg.MODEL.AUX_HEAD.ENABLED = False
    cfg.MODEL.AUX_HEAD.IN_FEATURE = "res4"
    cfg.MODEL.AUX_HEAD.CHANNELS = 256
    cfg.MODEL.AUX_HEAD.DROPOUT = 0.1
    cfg.MODEL.AUX_HEAD.LOSS_WEIGHT = 0.4

    cfg.MODEL.DETECTOR = CN()
    # none: no detector; shared: on the segmenter's own backbone; cached: none in the model, a trained one's boxes come
    # from the file CACHE; alone: nothing but a detector (META_ARCHITECTURE FPNDetector, FRAMEWORK.NAME Detector).
    cfg.MODEL.DETECTOR.MODE = "none"
    # What tools/cache_boxes.py wrote.
    cfg.MODEL.DETECTOR.CACHE = ""
    # Width of the 1x1 reduction of res5 before region proposals and box head.
    cfg.MODEL.DETECTOR.CHANNELS = 256
    cfg.MODEL.DETECTOR.LOSS_WEIGHT = 1.0
    # Semantic class ids of the detector's classes, filled in from the data set.
    cfg.MODEL.DETECTOR.CLASSES = ()
    cfg.MODEL.RPN.IN_FEATURES = ["det"]
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = 2000
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = 500
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 500
    # More proposals cost a fifth of a small step and find nothing that 100 do not.
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 100
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32, 64, 128, 256, 512]]
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["det"]
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 128
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 2
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 1024
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7


def _add_framework(cfg: CN) -> None:
    cfg.FRAMEWORK = CN()
    cfg.FRAMEWORK.NAME = "MeanTeacher"
    # Factor of all losses on unlabeled images (paper, eq. 4).
    cfg.FRAMEWORK.ALPHA = 1.0
    # A pseudo-label trains the student if the labeler's confidence reaches this; without effect in U2PL, where entropy
    # selects.
    cfg.FRAMEWORK.THRESHOLD = 0.95
    # Steps of supervised training before the first pseudo-label.
    cfg.FRAMEWORK.BURN_IN = 0
    # The same in epochs (see SOLVER.EPOCHS); 0: BURN_IN says it.
    cfg.FRAMEWORK.BURN_IN_EPOCHS = 0
    # decay = min(1 - 1 / (t + 1), DECAY), t counted from the first semi-supervised step. 0: the teacher is the student
    # as the last step left it, which makes the mean teacher FixMatch.
    cfg.FRAMEWORK.EMA_DECAY = 0.999
    # What becomes of the teacher's BN statistics: ema: as its weights; copy: the student's; none: they are its own.
    cfg.FRAMEWORK.EMA_BUFFERS = "ema"
    # Semi-supervised steps in which the teacher is still a copy of the student (U2PL: an epoch).
    cfg.FRAMEWORK.EMA_COPY_STEPS = 0
    # The same in epochs; 0: EMA_COPY_STEPS says it.
    cfg.FRAMEWORK.EMA_COPY_EPOCHS = 0
    cfg.FRAMEWORK.CUTMIX = CN()
    cfg.FRAMEWORK.CUTMIX.PROB = 0.5
    cfg.FRAMEWORK.CUTMIX.AREA = (0.02, 0.4)
    cfg.FRAMEWORK.CUTMIX.RATIO = (0.3, 1 / 0.3)
    # UniMatch: share of the feature maps' channels that its perturbed stream lacks.
    cfg.FRAMEWORK.FEATURE_DROPOUT = 0.5
    # The labeled loss is the mean over the hard pixels alone: those whose true class has at most this probability,
    # and at least MIN_KEPT of each process's batch. That number is not scaled with the batch.
    cfg.FRAMEWORK.OHEM = CN()
    cfg.FRAMEWORK.OHEM.ENABLED = False
    cfg.FRAMEWORK.OHEM.THRESHOLD = 0.7
    cfg.FRAMEWORK.OHEM.MIN_KEPT = 100_000

    # U2PL (frameworks/u2pl.py, frameworks/pixel_contrast.py).
    cfg.FRAMEWORK.U2PL = CN()
    # Percent of the pixels, those of highest entropy, that train as negatives alone; falls linearly to 0 at MAX_ITER.
    cfg.FRAMEWORK.U2PL.UNRELIABLE = 20.0
    # Factor of the contrastive loss: published configs 1, which counts as 0.25 (Cityscapes: 0.125) in the published
    # code (see frameworks/u2pl.py); paper 0.1.
    cfg.FRAMEWORK.U2PL.CONTRAST_WEIGHT = 1.0
    cfg.FRAMEWORK.U2PL.TEMPERATURE = 0.5
    # Anchors of a class, and negatives of each anchor. Their product is what the loss costs in time and memory.
    cfg.FRAMEWORK.U2PL.ANCHORS = 256
    cfg.FRAMEWORK.U2PL.NEGATIVES = 50
    # An anchor's class has more than this probability.
    cfg.FRAMEWORK.U2PL.ANCHOR_PROB = 0.3
    # First and last rank (from 0, the last exclusive) of the classes that an unreliable pixel is a negative of.
    cfg.FRAMEWORK.U2PL.NEGATIVE_RANKS = (3, 20)
    # Negatives kept of each class, and of class 0. A row is 2 * REPRESENTATION_DIM bytes, in checkpoints too.
    cfg.FRAMEWORK.U2PL.QUEUE_SIZE = 30_000
    cfg.FRAMEWORK.U2PL.QUEUE_SIZE_FIRST = 50_000
    # Negatives of each class that each process adds in one step.
    cfg.FRAMEWORK.U2PL.KEYS_PER_STEP = 256
    # The published code's choice of anchors and negatives, with its faults.
    cfg.FRAMEWORK.U2PL.CONTRAST_AS_PUBLISHED = False
    # AEL: it favours the classes of which the student is not sure.
    cfg.FRAMEWORK.AEL = CN()
    # Of the mean probability of each class on its labeled pixels.
    cfg.FRAMEWORK.AEL.MOMENTUM = 0.999
    # Draws, with replacement, of the classes that a step pastes from second labeled images (see INPUT.PASTE, whose PROB
    # 0 turns pasting off); 1 or more.
    cfg.FRAMEWORK.AEL.PASTE_CLASSES = 1
    # Ids of the classes that are never pasted.
    cfg.FRAMEWORK.AEL.HEAD_CLASSES = ()
    # An unlabeled image is remembered to have the classes that cover at least this share of its view.
    cfg.FRAMEWORK.AEL.PRESENCE_AREA = 0.03
    # What is cut out of it for CutMix is the box around a connected part of a class that covers more than this share.
    cfg.FRAMEWORK.AEL.COMPONENT_AREA = 0.03

    # AugSeg (frameworks/augseg.py): paste patches of labeled images, the likelier the less the teacher is sure.
    cfg.FRAMEWORK.AUGSEG = CN()
    cfg.FRAMEWORK.AUGSEG.INJECTION = True

    # Mending pseudo-labels before they are weighed (weighting/refinement.py); no published host here does it.
    cfg.PSEUDO_LABEL = CN()
    # none; tta: by the mean over three more views; component_vote: one class for a whole connected object; prototype:
    # probabilities times likeness to prototypes; detector: the class of a box where the segmenter names another one.
    cfg.PSEUDO_LABEL.REFINE = "none"

    # PPW: how far a pseudo-label's loss counts (paper, section 3.3).
    cfg.WEIGHTING = CN()
    cfg.WEIGHTING.ENABLED = False
    # What a label's weight is made of: a score in [0, 1], or the product of several; see weighting/scores.py. By the
    # memory bank: rank (the paper's), rank_margin, cosine, cosine_margin, euclidean, knn_margin; by probabilities:
    # confidence, object, softmatch; by boxes: detector; by three more forwards of who labels: tta.
    cfg.WEIGHTING.KIND = ("rank",)
    # The score's exponent, above 0: more than 1 sharpens it.
    cfg.WEIGHTING.POWER = 1.0
    # Divide it by its running mean over the class, so that no class loses for being hard.
    cfg.WEIGHTING.PER_CLASS = False
    # What `object` averages the confidence over: component (the pixel's connected one) | class (all of its class).
    cfg.WEIGHTING.OBJECT = "component"
    # Share of the former value in the running means of PER_CLASS and softmatch.
    cfg.WEIGHTING.MOMENTUM = 0.999
    # Subtract the mean prototype from pixel and prototype before they are compared.
    cfg.WEIGHTING.CENTERED = False
    cfg.WEIGHTING.K = 5
    # paper: s / k in [0, 1]; plus_one: s / k + 1 in [1, 2].
    cfg.WEIGHTING.WEIGHT_FORM = "paper"
    # The loss is divided by: valid: the number of valid pixels; weight_sum: the sum of their weights.
    cfg.WEIGHTING.NORM = "valid"
    # stride4: compared at the embedding's own resolution; full: after bilinear upsampling to the label's.
    cfg.WEIGHTING.TOPK_RES = "stride4"
    # Whose embeddings of labeled images fill the labeled ring: student (at no cost) | labeler (a forward more).
    cfg.WEIGHTING.LABELED_FROM = "student"
    # Which view the unlabeled bank's embeddings are taken from: weak (the labeler's) | strong (the student's).
    cfg.WEIGHTING.UNLAB_VIEW = "weak"
    # Embeddings per class of each of the two rings, labeled and unlabeled.
    cfg.WEIGHTING.BANK_SIZE = 256
    # Random pixels per class that each process adds to a ring in one step, per image of its batch.
    cfg.WEIGHTING.PUSH_PER_IMAGE = 1
    # A class with fewer embeddings in the bank leaves its pixels' weights neutral.
    cfg.WEIGHTING.MIN_COUNT = 16
    # Labeled pixels enter the bank if the student labels them rightly with more than this confidence.
    cfg.WEIGHTING.LABELED_CONF = 0.95

    # RPPI: pixels on which segmenter and detector agree join the bank (paper, section 3.2). Needs a detector.
    cfg.RPPI = CN()
    cfg.RPPI.ENABLED = False
    cfg.RPPI.CONF = 0.95
    cfg.RPPI.BOX_SCORE = 0.85


def _add_solver(cfg: CN) -> None:
    cfg.SOLVER.OPTIMIZER = "SGD"  # SGD | AdamW
    cfg.SOLVER.BASE_LR = 0.001
    # Factors of the learning rate: of the segmentation head, and of the detector, which a fast start makes diverge.
    cfg.SOLVER.HEAD_LR_FACTOR = 10.0
    cfg.SOLVER.DETECTOR_LR_FACTOR = 1.0
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupPolyLR"
    cfg.SOLVER.WARMUP_ITERS = 0
    # The length of the training in epochs of the unlabeled images (without any, of the labeled ones), from which
    # MAX_ITER is set when a run starts; 0: MAX_ITER says it. An epoch is counted as published: each of
    # REFERENCE_WORLD_SIZE processes has its share of the images, rounded up, and drops the rest that fills no batch of
    # REFERENCE_IMS_PER_BATCH (or IMS_PER_BATCH) images over all processes. Of a key in epochs and its key in steps, the
    # one counts that a later file or the command line sets; both in one place is an error.
    cfg.SOLVER.EPOCHS = 0
    # Epochs between checkpoints; 0: CHECKPOINT_PERIOD says it.
    cfg.SOLVER.CHECKPOINT_EPOCHS = 0
    cfg.SOLVER.WEIGHT_DECAY_NORM = None
    cfg.SOLVER.AMP.DTYPE = "bfloat16"  # bfloat16 | float16, with SOLVER.AMP.ENABLED
    # Periodic checkpoints to keep beside the best and the last.
    cfg.SOLVER.CHECKPOINTS_TO_KEEP = 2
    # Steps between pictures of predictions, pseudo-labels and weights in TensorBoard; 0: none.
    cfg.SOLVER.PICTURE_PERIOD = 500


def _add_evaluation(cfg: CN) -> None:
    # Epochs between evaluations (see SOLVER.EPOCHS); 0: EVAL_PERIOD says it.
    cfg.TEST.EVAL_EPOCHS = 0
    # confusion: one confusion matrix on the device; detectron2: SemSegEvaluator; label_files: no numbers and no masks
    # needed, one PNG of the data set's own ids for each image, as the Cityscapes server takes them.
    cfg.TEST.EVALUATOR = "confusion"
    # How an image is segmented; boxes are always found on the whole image.
    cfg.TEST.INFERENCE = CN()
    # whole: the image at once; slide: overlapping windows, averaged; crop: the centre alone, which alone is judged.
    cfg.TEST.INFERENCE.MODE = "whole"
    # (height, width) of the windows of slide and of the centre of crop.
    cfg.TEST.INFERENCE.CROP_SIZE = (513, 513)
    # With crop, images that are smaller than it are judged on their padding too, which then has the class 0: as in
    # U2PL's and AEL's own figures for VOC. Else what was padded is not judged.
    cfg.TEST.INFERENCE.JUDGE_PADDING = False
    # Pixels from window to window, down and to the right.
    cfg.TEST.INFERENCE.STRIDE = (342, 342)
    # Windows that would leave the image. shift: are moved inside, and a smaller image is padded to the window (U2PL,
    # AEL); truncate: are cut off (UniMatch, AugSeg).
    cfg.TEST.INFERENCE.BORDER = "shift"
    # What is averaged over windows, flips and scales: probability (UniMatch, AugSeg, AEL) | logit (U2PL).
    cfg.TEST.INFERENCE.AVERAGE = "probability"
    # Windows that the model gets at once: more are faster on a GPU and take more memory.
    cfg.TEST.INFERENCE.WINDOW_BATCH = 1
    # Test-time augmentation: also the mirror image; factors of the image's size.
    cfg.TEST.INFERENCE.FLIP = False
    cfg.TEST.INFERENCE.SCALES = (1.0,)
    # Also evaluate the student where a teacher is what is evaluated and exported.
    cfg.TEST.STUDENT = False
    # Data sets with masks on which pseudo-labels are judged, such as the unlabeled list's name.
    cfg.TEST.PSEUDO_LABELS = ()
    # With a detector, they are judged inside and outside of its boxes from each of these scores on.
    cfg.TEST.BOX_SCORES = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    # A box is right if its IoU with a component of its class reaches this (paper, supplementary table 1).
    cfg.TEST.BOX_IOU = 0.8
